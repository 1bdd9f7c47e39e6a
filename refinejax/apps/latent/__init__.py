"""Search for inputs for which a trained model meets targets."""

from refinejax._lazy import attach as _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)
