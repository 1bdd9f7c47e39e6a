"""The walk over all that a value depends on, and how an object of any class is read."""

import copyreg
import functools
import hashlib
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.core import Tracer

from refinejax._fingerprint._code import Code, library_name, own_module, package

_REGISTRY = jax.tree_util.default_registry
_LINEN = ("_id", "_state")  # a number of each module of flax.linen, and where it stands in a trace


class Walk:
    """Visits all that a value depends on, and hashes it on the way.

    Args:
        name: of the value, with which the paths in errors begin.
        lasting: whether the hash is compared between processes. If not, objects without content
            (files, locks, tracers) count by identity, and those that can be changed in place
            (lists, dicts, instances) also by identity, so that side effects are never shared.
    """

    def __init__(self, name: str, *, lasting: bool) -> None:
        self.path, self.lasting = [name], lasting
        self.kept: list[Any] = []  # whose identity counts; alive, so that no other takes the number
        self.functions: list[Callable[..., Any]] = []  # the user's, in the order of visits
        self.names: set[str] = set()  # attributes that their code reads
        self._hash = hashlib.blake2b(digest_size=20)
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []
        self._reads: tuple[str, ...] = ()
        self._modules: set[tuple[str, tuple[str, ...]]] = set()

    def put(self, *parts: str | bytes | int) -> None:
        """Hash texts, numbers or bytes, so that no two lists of parts are the same stream."""
        for part in parts:
            data = part if isinstance(part, bytes) else str(part).encode(errors="replace")
            self._hash.update(b"%d:" % len(data))
            self._hash.update(data)

    def digest(self) -> bytes:
        """Return the hash of all that was visited so far."""
        return self._hash.digest()

    def visit(self, value: Any, step: str = "") -> None:
        """Hash ``value``, which is found at ``step`` below where the walk stands."""
        self.path.append(step)
        visit(value, self)
        self.path.pop()

    def each(self, values: Iterable[Any], kind: str) -> None:
        """Hash values in their order."""
        values = list(values)
        self.put(kind, len(values))
        for index, value in enumerate(values):
            self.visit(value, f"[{index}]")

    def attributes(self, values: dict[str, Any], step: str = ".") -> None:
        """Hash named values, whatever their order."""
        self.put("attributes", len(values))
        for name in sorted(values, key=str):
            self.put(str(name))
            self.visit(values[name], f"{step}{name}")

    def again(self, value: Any) -> bool:
        """Say whether ``value`` was visited before; if so, hash which one it was."""
        number = self._seen.setdefault(id(value), len(self._seen))
        if number < len(self._alive):
            self.put("again", number)
            return True
        self._alive.append(value)
        return False

    def mutable(self, value: Any) -> None:
        """Note that ``value`` can be changed in place."""
        if not self.lasting:
            self.identity(value)

    def opaque(self, value: Any) -> None:
        """Hash what has no content that can be read: by identity, or refuse.

        Raises:
            ValueError: if the hash must last.
        """
        if self.lasting:
            raise ValueError(
                f"checkpoint: the content of {''.join(self.path).lstrip('.')} "
                f"({type(value).__module__}.{type(value).__qualname__}) cannot be "
                "compared with an earlier run, so a checkpoint cannot tell whether it is "
                "the same job; open or make it inside the function, or leave checkpoint= out"
            )
        self.identity(value)

    def identity(self, value: Any) -> None:
        """Hash which object ``value`` is."""
        self.put("identity", id(value))
        self.kept.append(value)

    def apart(self, value: Any) -> bytes:
        """Return the digest of ``value`` alone."""
        other = Walk("".join(self.path), lasting=self.lasting)
        other.visit(value)
        self.kept += other.kept
        return other.digest()

    @contextmanager
    def reading(self, code: Code) -> Iterator[None]:
        """Within the block, of modules the attributes that ``code`` names are visited."""
        before, self._reads = self._reads, code.attributes
        self.names.update(code.attributes)
        yield
        self._reads = before

    @contextmanager
    def tree(self) -> Iterator[None]:
        """Within the block, paths begin at the root of a pytree."""
        before, self.path = self.path, []
        yield
        self.path = before

    def module(self, module: types.ModuleType) -> None:
        """Hash what the code being read names of a module."""
        own = own_module(module.__name__)
        self.put("module", module.__name__ if own else package(module.__name__))
        found = vars(module)
        if own and (module.__name__, self._reads) not in self._modules:
            self._modules.add((module.__name__, self._reads))
            self.attributes({name: found[name] for name in self._reads if name in found})


@functools.singledispatch
def visit(value: Any, walk: Walk) -> None:
    """Any object: by the first reading that fits."""
    if isinstance(value, Tracer):
        walk.opaque(value)
    elif isinstance(value, jax.Array):
        visit.dispatch(jax.Array)(value, walk)
    elif (known := library_name(value)) is not None:
        walk.put("library", known)
    elif callable(value) and callable(inner := getattr(value, "__wrapped__", None)):
        walk.put("wrapper", type(value).__qualname__)
        walk.visit(inner)
        held = getattr(value, "__dict__", {})
        walk.attributes({k: v for k, v in held.items() if k != "__wrapped__"})
    elif not walk.again(value):
        _object(value, walk)


def _object(value: Any, walk: Walk) -> None:
    kind = type(value)
    if (flat := _REGISTRY.flatten_one_level(value)) is not None:
        walk.visit(kind)
        walk.each(flat[0], "children")
        walk.visit(flat[1])
        return
    try:
        reduce = copyreg.dispatch_table.get(kind)
        reduced: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
    except Exception:  # what cannot be pickled has no content that can be read
        walk.opaque(value)
        return
    frozen = getattr(getattr(kind, "__dataclass_params__", None), "frozen", False)
    if not frozen:
        walk.mutable(value)
    if isinstance(reduced, str):
        walk.put("global", kind.__qualname__, reduced)
        return
    made, (state, items, pairs) = reduced[:2], (*reduced[2:5], None, None, None)[:3]
    for part in (made[0], *made[1]):
        walk.visit(part)
    hidden = _LINEN if any(base.__module__ == "flax.linen.module" for base in kind.mro()) else ()
    _state(state, hidden, walk)
    walk.each(items or (), "items")
    walk.each(pairs or (), "pairs")
    if (held := getattr(value, "__dict__", None)) and held is not state:
        _state(held, hidden, walk)  # a __getstate__ of the class's own may leave some out


def _state(state: Any, hidden: tuple[str, ...], walk: Walk) -> None:
    parts = state if isinstance(state, tuple) else (state,)
    for part in parts:
        if isinstance(part, dict) and all(isinstance(name, str) for name in part):
            walk.attributes({name: value for name, value in part.items() if name not in hidden})
        else:
            walk.visit(part)
