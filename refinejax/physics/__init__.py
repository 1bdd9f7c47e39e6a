"""Forward models as pure functions, one physics a module, imported when first used."""

from refinejax._lazy import attach as _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)
