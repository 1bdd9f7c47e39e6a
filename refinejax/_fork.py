"""Forked processes: the threads of JAX do not live on in them, and computing there never ends."""

import os
import sys

_used_by: int | None = None
_forked = False


def check_process() -> None:
    """Note that this process computes, unless it was forked from one in which JAX was in use.

    Raises:
        RuntimeError: names the remedy.
    """
    global _used_by
    check_fork()
    _used_by = os.getpid()


def check_fork() -> None:
    """Refuse a process that was forked from one in which JAX was in use.

    Raises:
        RuntimeError: names the remedy.
    """
    if _forked or _used_by not in (None, os.getpid()):
        raise RuntimeError(
            "refinejax was called in a forked process, after JAX was used in its parent: it would "
            "wait forever for threads that a fork does not copy. Start processes anew: "
            'multiprocessing.set_start_method("spawn") or "forkserver" (for an executor '
            'mp_context=multiprocessing.get_context("spawn"))'
        )


def _note_fork() -> None:
    """In the child: note whether the parent had devices in use."""
    global _forked
    bridge = sys.modules.get("jax._src.xla_bridge")
    _forked = _forked or _used_by is not None or bool(getattr(bridge, "_backends", None))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
