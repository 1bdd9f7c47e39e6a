"""Compiled programs that outlive the process."""

import os
import tempfile
from pathlib import Path

import jax
from platformdirs import user_cache_path


def keep_compiled(folder: str | os.PathLike[str] | None = None) -> Path:
    """Keep compiled programs in a folder, so that later processes need not compile them again.

    It is JAX's persistent compilation cache, set to keep whatever takes a tenth of a second or
    more. Call it before the first refinement; programs that call black boxes are not kept. They are
    valid for one version of JAX and one kind of machine: others are compiled and put beside them.

    Args:
        folder: where; by default ``refinejax`` in the user's folder for caches: on Linux
            ``$XDG_CACHE_HOME`` or ``~/.cache``, on macOS ``~/Library/Caches``, on Windows
            ``%LOCALAPPDATA%``.

    Returns:
        The folder.

    Raises:
        ValueError: if nothing can be written there.
    """
    path = user_cache_path("refinejax", appauthor=False) if folder is None else Path(folder)
    path = path.expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(f"folder: cannot write in {path}: {error.strerror}") from None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return path
