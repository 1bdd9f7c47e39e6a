"""A clock that a test sets."""


class Clock:
    """Stands in for the module `time` where code reads it: time passes when a test says so.

    Args:
        tick: seconds that pass at every reading.
    """

    def __init__(self, tick: float = 0.0) -> None:
        self.now, self.tick = 0.0, tick

    def monotonic(self) -> float:
        self.now += self.tick
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
