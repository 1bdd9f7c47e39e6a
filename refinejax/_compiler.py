"""Options of the compiler for programs that are called outside other programs."""

from importlib.metadata import version

# In 0.10 the older emitters compile in two thirds of the time, and what they make is as fast or
# faster; later versions have none.
_OLDER = version("jaxlib").startswith("0.10.")
OPTIONS: dict[str, bool | int | float | str] = (
    {"xla_cpu_use_fusion_emitters": False} if _OLDER else {}
)

# Sums that may be reordered are vectorized: two to five times faster on CPU. NaN stays NaN.
REORDER = {
    **OPTIONS,
    "xla_cpu_enable_fast_math": True,
    "xla_cpu_fast_math_honor_nans": True,
    "xla_cpu_fast_math_honor_infs": True,
}
