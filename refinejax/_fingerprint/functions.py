"""Functions, classes and modules: by code and by what they read."""

import builtins
import functools
import types
from typing import Any

from refinejax._fingerprint._code import Code, library_name, own_module, package, read_code
from refinejax._fingerprint._walk import Walk, visit

_NO_CONTENT = frozenset({"_abc_impl", "__dict__", "__weakref__", "__doc__", "__annotations__"})


@visit.register
def _module(value: types.ModuleType, walk: Walk) -> None:
    walk.module(value)


@visit.register
def _code(value: types.CodeType, walk: Walk) -> None:
    walk.put("code", read_code(value).digest)


@visit.register
def _cell(value: types.CellType, walk: Walk) -> None:
    try:
        content = value.cell_contents
    except ValueError:  # not yet bound
        walk.put("empty cell")
        return
    walk.visit(content)


@visit.register
def _function(value: types.FunctionType, walk: Walk) -> None:
    if (known := library_name(value)) is not None:
        walk.put("library", known)
        return
    if walk.again(value):
        return
    code = read_code(value.__code__)
    walk.put("function", code.digest)
    own = own_module(value.__module__)
    if own:
        walk.functions.append(value)
    else:  # made by a function of a package, whose globals its version stands for
        walk.put("package", package(value.__module__))
    walk.visit(value.__defaults__, ".<default>")
    walk.attributes(value.__kwdefaults__ or {}, ".<default>.")
    with walk.reading(code):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        walk.attributes(dict(cells), ".<closure>.")
        if own:
            walk.attributes(_globals(value, code), ".<globals>.")
        walk.attributes(value.__dict__)


def _globals(function: types.FunctionType, code: Code) -> dict[str, Any]:
    """Return what the code of a function names outside itself."""
    found = function.__globals__
    standard = vars(builtins)
    names = {name: found.get(name, standard.get(name)) for name in code.globals}
    return names | code.imported()


@visit.register
def _method(value: types.MethodType, walk: Walk) -> None:
    walk.put("method")
    walk.visit(value.__func__)
    walk.visit(value.__self__)


@visit.register
def _builtin(value: types.BuiltinFunctionType, walk: Walk) -> None:
    walk.put("builtin", value.__qualname__)
    if not isinstance(value.__self__, types.ModuleType | type(None)):
        walk.visit(value.__self__, ".<self>")
    else:
        walk.put(str(value.__module__))


@visit.register
def _partial(value: functools.partial, walk: Walk) -> None:
    walk.put(type(value).__qualname__)
    walk.visit(value.func)
    walk.each(value.args, "args")
    walk.attributes(value.keywords, ".")


@visit.register(property)
@visit.register(staticmethod)
@visit.register(classmethod)
def _descriptor(value: Any, walk: Walk) -> None:
    walk.put(type(value).__qualname__)
    for part in ("fget", "fset", "__func__"):
        walk.visit(getattr(value, part, None))


@visit.register(types.MemberDescriptorType)
@visit.register(types.GetSetDescriptorType)
@visit.register(types.WrapperDescriptorType)
@visit.register(types.MethodDescriptorType)
@visit.register(types.ClassMethodDescriptorType)
def _slot(value: Any, walk: Walk) -> None:
    walk.put("slot", value.__qualname__)


@visit.register
def _class(value: type, walk: Walk) -> None:
    if (known := library_name(value)) is not None:
        walk.put("library", known)
    elif not walk.again(value):
        walk.put("class", value.__qualname__)
        walk.each(value.__bases__, "bases")
        walk.attributes({k: v for k, v in vars(value).items() if _counts(k, v)})


def _counts(name: str, value: Any) -> bool:
    """Say whether an attribute of a class is its content, not what Python keeps about it."""
    private = name.startswith("__") and not callable(value)
    return not private and name not in _NO_CONTENT
