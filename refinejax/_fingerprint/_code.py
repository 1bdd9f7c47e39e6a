"""What the code of a function is and names, and which modules are the user's own."""

import dis
import functools
import hashlib
import importlib.metadata
import sys
import types
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary


class Code(NamedTuple):
    """Bytecode, read once.

    Attributes:
        digest: of bytecode, constants (also the code inside) and names; not of the place it stands.
        globals: names that it reads from its module, sorted.
        attributes: names of attributes that it reads, sorted.
        imports: names of modules that it imports.
    """

    digest: bytes
    globals: tuple[str, ...]
    attributes: tuple[str, ...]
    imports: tuple[str, ...]

    def imported(self) -> dict[str, Any]:
        """Return the modules that it imports, as far as they are loaded."""
        return {name: sys.modules[name] for name in self.imports if name in sys.modules}


_read: WeakKeyDictionary[types.CodeType, Code] = WeakKeyDictionary()


def read_code(code: types.CodeType) -> Code:
    """Return what ``code`` is and names."""
    found = _read.get(code)
    if found is None:
        found = _read[code] = _parse(code)
    return found


def _parse(code: types.CodeType) -> Code:
    names: dict[str, set[str]] = {"globals": set(), "attributes": set(), "imports": set()}
    for instruction in dis.get_instructions(code):
        kind = _KINDS.get(instruction.opname)
        if kind is not None:
            names[kind].add(str(instruction.argval))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = read_code(constant)
            for kind, found in names.items():
                found.update(getattr(inner, kind))
    return Code(_digest(code), *(tuple(sorted(found)) for found in names.values()))


_KINDS = {
    "LOAD_GLOBAL": "globals",
    "LOAD_NAME": "globals",
    "LOAD_ATTR": "attributes",
    "LOAD_METHOD": "attributes",
    "IMPORT_FROM": "attributes",
    "IMPORT_NAME": "imports",
}


def _digest(code: types.CodeType) -> bytes:
    digest = hashlib.blake2b(code.co_code, digest_size=20)
    digest.update(code.co_exceptiontable)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    digest.update(repr((code.co_name, counts, names)).encode())
    for constant in code.co_consts:
        digest.update(_constant(constant))
    return digest.digest()


def _constant(value: Any) -> bytes:
    """Return a text of a constant that is equal in all processes."""
    if isinstance(value, types.CodeType):
        return read_code(value).digest
    if isinstance(value, tuple | frozenset):
        parts = [_constant(item) for item in value]
        parts = sorted(parts) if isinstance(value, frozenset) else parts
        return b"(" + b",".join(b"%d:%s" % (len(part), part) for part in parts) + b")"
    return f"{type(value).__name__} {value!r};".encode(errors="replace")


@functools.cache
def own_module(name: str | None) -> bool:
    """Say whether a module is the user's own: not of Python, refinejax or an installed package."""
    root = (name or "__main__").partition(".")[0]
    if root in sys.builtin_module_names or root in sys.stdlib_module_names:
        return root == "__main__"
    if root == "refinejax":
        return False
    file = getattr(sys.modules.get(root), "__file__", None)
    paths = [file] if file else list(getattr(sys.modules.get(root), "__path__", []))
    return not any("site-packages" in path or "dist-packages" in path for path in paths)


@functools.cache
def _version(root: str) -> str:
    if root in sys.stdlib_module_names:
        return ".".join(map(str, sys.version_info[:2]))
    version = getattr(sys.modules.get(root), "__version__", None)
    if version is None:
        try:
            version = importlib.metadata.version(root)
        except importlib.metadata.PackageNotFoundError:
            version = ""
    return str(version)


def package(module: str) -> str:
    """Return the name of an installed module with the version of its package."""
    return f"{module} {_version(module.partition('.')[0])}"


def library_name(value: Any) -> str | None:
    """Return module, name and version of what belongs to an installed package or to Python.

    None for all else: the user's own, and what a function of a package has made.
    """
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str) or own_module(module):
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{package(module)}:{name}" if found is value else None
