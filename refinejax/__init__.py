"""Refine predictions through forward models, for one sample or a million, and say what came of it.

A network, a fit or a guess gives parameters; a forward model says what those parameters would have
been observed as; refinejax moves the parameters until the model explains the observation.

The public names are listed in ``__init__.pyi``. Each is imported when it is first used: a part that
needs no JAX, such as `refinejax.experiments`, does not wait for it.
"""

from refinejax import _fork as _fork  # watches for forks from the import on
from refinejax._lazy import attach as _attach

__version__ = "0.1.0.dev0"
__getattr__, __dir__, __all__ = _attach(__name__, __file__)
