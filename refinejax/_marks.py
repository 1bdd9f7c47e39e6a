"""Functions that are equal where their content is, so that a program is used while it is right.

``jax.jit`` finds a compiled program by the functions that went into it. To Python a function is
equal to itself alone, whatever becomes of the globals, closures and attributes that it reads: a
notebook that assigns ``t`` anew would get the program made with the old ``t``, and a new lambda of
the same text would be compiled again. So the functions in problems and refiners are marked at the
doors (`run`, `run_until`, `run_batch`, `run_stream`, `refine`): `Marked` compares by content.

It costs 20 to 300 µs a call for an ordinary function, and arrays that NumPy holds are read at about
0.6 GB/s; the digest of a JAX array, which cannot change, is kept.
"""

import functools
import threading
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import jax
from jax.tree_util import PyTreeDef

from refinejax._fingerprint import Walk, fingerprint, visit
from refinejax._fingerprint._code import library_name, own_module
from refinejax._fork import check_process
from refinejax._gate import models_in_jax
from refinejax._promotion import standard_promotion

Tree = TypeVar("Tree")
Function = TypeVar("Function", bound=Callable[..., Any])
_MOST = 1024  # contents remembered that a function has given itself

_session: ContextVar["Session | None"] = ContextVar("refinejax_session", default=None)
_lock = threading.Lock()
_first: OrderedDict[Any, tuple[Any, list[Any]]] = OrderedDict()
_first_jobs: OrderedDict[str, str] = OrderedDict()


class Marked:
    """A function that is equal to others of the same content; for all else as the function.

    Args:
        function: the function to call.
        session: in which it was marked.
    """

    __slots__ = ("__weakref__", "called", "function", "kept", "mark", "session", "walked")

    def __init__(self, function: Callable[..., Any], session: "Session") -> None:
        self.function, self.session, self.called = function, session, False
        self.walked, self.kept, reached = _read(function)
        self.mark = _original(self.walked)
        _forget_stale(self.mark, function, reached)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function. That it was called tells `Session.settle` to look at it again."""
        self.called = True
        return self.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Marked) and self.mark == other.mark

    def __hash__(self) -> int:
        return hash(self.mark)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)

    def __repr__(self) -> str:
        return repr(self.function)

    def __reduce__(self) -> Any:
        return _same, (self.function,)


def _same(function: Any) -> Any:
    return function


@visit.register
def _visit_marked(value: Marked, walk: Walk) -> None:
    walk.visit(value.function)


def _read(function: Any) -> tuple[Any, list[Any], list[Any]]:
    """Return the mark of a function, what must stay alive for it, and the functions it reaches."""
    walk = Walk("function", lasting=False)
    try:
        walk.visit(function)
    except RecursionError:  # nested too deeply to be read: equal to itself alone
        return ("identity", id(function)), [function], []
    return walk.digest(), walk.kept, walk.functions


def _original(mark: Any) -> Any:
    """Return the mark of the content from which a function has come to this one by itself."""
    with _lock:
        return _first[mark][0] if mark in _first else mark


_current: set[Any] = set()  # marks whose functions are as they were when last traced
_contents: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()


def _forget_stale(mark: Any, root: Any, reached: list[Any]) -> None:
    """Have JAX forget what it has traced, if a function inside a model has another content.

    JAX keeps the trace of a function that is passed to ``scan``, ``cond``, ``jit`` and the like,
    and finds it by the function's identity.
    """
    with _lock:
        if mark in _current:
            return
        if _note(root, reached):
            jax.clear_caches()
            _current.clear()
        _current.add(mark)


def _note(root: Any, reached: list[Any]) -> bool:
    """Remember the contents of functions; say whether one has changed."""
    changed = False
    for function in reached:
        if function is root:
            continue
        content = Walk("function", lasting=False).apart(function)
        changed |= _contents.get(function, content) != content
        _contents[function] = content
    return changed


class Session:
    """One call of a door: a function is marked once in it."""

    def __init__(self) -> None:
        self.marked: dict[Marked, Marked] = {}  # one of each content, the first
        self.known: dict[int, Marked] = {}  # by the identity of the function
        self.jobs: list[tuple[Any, str, str]] = []

    def mark(self, function: Any) -> Marked:
        """Return the function, marked; the one of before if it is marked in this session."""
        if isinstance(function, Marked):
            if function.session is self:
                return function
            function = function.function
        found = self.known.get(id(function))
        if found is None or found.function is not function:
            found = self.known[id(function)] = Marked(function, self)
            self.marked.setdefault(found, found)
        return found

    def job(self, statics: Any) -> str:
        """Return the fingerprint of the static parts of a job, the same in every process.

        Args:
            statics: structures of pytrees, numbers and texts.

        Raises:
            ValueError: names what cannot be compared with an earlier run.
        """
        found = fingerprint(statics)
        self.jobs.append((statics, found, _first_jobs.get(found, found)))
        return self.jobs[-1][2]

    def settle(self) -> None:
        """Take the content of functions that have changed it while they ran for the old.

        A model may count its calls or keep what it has computed; that is no other model.
        """
        self.known.clear()
        for marked in [marked for marked in self.marked.values() if marked.called]:
            marked.called = False
            now, kept, reached = _read(marked.function)
            if now in (marked.walked, marked.mark):
                continue
            with _lock:
                _note(marked.function, reached)
                _remember(_first, now, (marked.mark, [*marked.kept, *kept]))
        for statics, before, job in self.jobs:
            with suppress(ValueError):  # the next run with a checkpoint says so
                if (after := fingerprint(statics)) not in (before, job):
                    _remember(_first_jobs, after, job)
        self.jobs.clear()


def _remember(store: OrderedDict[Any, Any], name: Any, value: Any) -> None:
    store[name] = value
    while len(store) > _MOST:
        store.popitem(last=False)


@contextmanager
def session() -> Iterator[Session]:
    """Within the block functions are marked once; blocks inside belong to the outermost."""
    current = _session.get()
    if current is not None:
        yield current
        return
    current = Session()
    token = _session.set(current)
    try:
        yield current
    finally:
        _session.reset(token)
        current.settle()


def door(function: Function) -> Function:
    """Decorate an entry point.

    Refuse in a forked process, mark functions once per call, and promote dtypes as by default.
    """

    @functools.wraps(function)
    def entered(*args: Any, **kwargs: Any) -> Any:
        check_process()
        with session(), models_in_jax(), standard_promotion():
            return function(*args, **kwargs)

    return cast(Function, entered)


def mark(tree: Tree, within: Session | None = None) -> Tree:
    """Return a pytree whose static functions are equal where their content is.

    Args:
        tree: a problem or a refiner.
        within: the session; by default the session of the call, or a new one.

    Returns:
        ``tree`` itself if it has no functions but those of installed packages.
    """
    current = within or _session.get() or Session()
    structure = jax.tree.structure(tree)
    marked = _mark_structure(structure, current)
    return tree if marked is structure else jax.tree.unflatten(marked, jax.tree.leaves(tree))


def mark_function(function: Function) -> Function:
    """Return a function, marked unless it is one of an installed package; of a pytree its own."""
    if not jax.tree_util.all_leaves([function]):
        return mark(function)
    return _mark_static(function, _session.get() or Session())


def check_unchanged(tree: Any) -> None:
    """Refuse functions that were marked and have another content now.

    Raises:
        ValueError: names the function.
    """
    for function in _marked(jax.tree.structure(tree)):
        if function.mark != _original(_read(function.function)[0]):
            raise ValueError(
                f"fit: what {getattr(function, '__name__', function)} reads (a global, a closure, "
                "an attribute) has changed since the fit, so the model is another; refine again"
            )


def _marked(structure: Any) -> Iterator[Marked]:
    node = structure.node_data()
    parts = node[1] if node and isinstance(node[1], tuple) else (node and node[1],)
    yield from (part for part in parts if isinstance(part, Marked))
    for child in structure.children():
        yield from _marked(child)


def _mark_structure(structure: Any, current: Session) -> Any:
    node = structure.node_data()
    if node is None:
        return structure
    kind, aux = node
    children = structure.children()
    new = [_mark_structure(child, current) for child in children]
    static = aux if getattr(kind, "called_on_host", False) else _mark_static(aux, current)
    if static is aux and all(a is b for a, b in zip(new, children, strict=True)):
        return structure
    registry = jax.tree_util.default_registry
    return PyTreeDef.from_node_data_and_children(registry, (kind, static), new)


def _mark_static(value: Any, current: Session) -> Any:
    if type(value) is tuple:
        parts = tuple(_mark_static(part, current) for part in value)
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else parts
    return current.mark(value) if _is_own_function(value) else value


def _is_own_function(value: Any) -> bool:
    """Say whether content may tell one callable from another: not classes, not of packages."""
    if isinstance(value, type) or not callable(value) or library_name(value) is not None:
        return False
    made = isinstance(value, Marked | types.FunctionType | types.MethodType | functools.partial)
    return made or hasattr(value, "__wrapped__") or own_module(type(value).__module__)
