"""Applications: what a domain user imports. Each is imported when it is first used.

`Application` and `Command` are what an application of another package describes itself by.
"""

from refinejax._lazy import attach as _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)
