"""How much memory has been used at most."""

import sys

import jax


def peak_memory() -> float:
    """Return the peak so far in MB (10⁶ bytes): of the first device, or on a CPU of the process.

    NaN where the system does not say.
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 1e6
    try:
        import resource
    except ImportError:  # not on Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
