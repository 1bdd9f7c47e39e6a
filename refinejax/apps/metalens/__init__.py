"""From phase maps of a metalens to its geometry."""

from refinejax._lazy import attach as _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)
