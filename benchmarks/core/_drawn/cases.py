"""What a case is, and how cases are drawn.

A `Frame` is all that compiles a program of its own; a `Case` is a frame and what is drawn: numbers
and words, so that a case that has failed is one line of a test.
"""

from typing import Any, NamedTuple

from hypothesis import strategies as st

from benchmarks.core._drawn.models import FORMULAS


class Frame(NamedTuple):
    """What decides which programs are compiled.

    Attributes:
        model: a name in `FORMULAS`.
        dtype: of params and observations.
        form: "bare" (params only), "context", "object" (a pytree with units), "dict", "black box".
        bounded: whether there are bounds.
        noise: "none", "pixels" (shared by the samples), "samples" (one for each), "all".
        entry: "refine", "run_batch" or "run_stream".
        method: as for `refine`; for the other two "lm" or "lbfgs".
    """

    model: str
    dtype: str
    form: str
    bounded: bool
    noise: str
    entry: str
    method: str


FRAMES = {
    "line": Frame("line", "float32", "bare", False, "none", "refine", "auto"),
    "line-bounded": Frame("line", "float32", "context", True, "all", "refine", "lm"),
    "line-float64": Frame("line", "float64", "context", False, "samples", "refine", "auto"),
    "line-lbfgs": Frame("line", "float32", "context", False, "none", "refine", "lbfgs"),
    "line-dict": Frame("line", "float32", "dict", True, "none", "refine", "lm"),
    "line-float16": Frame("line", "float16", "bare", False, "none", "refine", "auto"),
    "line-black-box": Frame("line", "float32", "black box", True, "pixels", "refine", "auto"),
    "line-stream": Frame("line", "float32", "context", False, "none", "run_stream", "lm"),
    "cubic": Frame("cubic", "float32", "context", False, "pixels", "refine", "auto"),
    "decay": Frame("decay", "float32", "object", True, "pixels", "refine", "lm"),
    "decay-float64": Frame("decay", "float64", "context", True, "none", "refine", "lm"),
    "decay-lbfgs": Frame("decay", "float32", "bare", True, "none", "refine", "lbfgs"),
    "peak": Frame("peak", "float32", "context", False, "all", "refine", "auto"),
    "peak-batch": Frame("peak", "float64", "context", True, "all", "run_batch", "lm"),
}
ALONE = ("line-bounded",)  # in which one sample is drawn too: a program of its own
BOUNDS = (
    *("wide", "wide", "huge", "infinite", "one-sided", "tight", "equal", "inverted"),
    *("pairs", "with None", "numbers"),
)
MISSING = ("none", "none", "none", "some", "all of one", "few", "mask", "infinite")
ARRAYS = (
    *("plain", "plain", "plain", "jax", "list", "big-endian", "read-only", "strided", "float64"),
)
STARTS = ("near", "near", "truth", "zero", "far", "shared", "NaN", "outside")


class Case(NamedTuple):
    """A fit that was drawn.

    Attributes:
        frame: a name in `FRAMES`.
        seed: of truths, starts, noise and missing pixels.
        samples: how many; 0 for one without a sample axis.
        unit: of the observations.
        scales: units of the params; those without a place for them ignore them.
        spread: of the noise, relative to the unit.
        bounds: a word of `BOUNDS`.
        missing: a word of `MISSING`.
        arrays: a word of `ARRAYS`.
        start: a word of `STARTS`.
        said: what is said of the noise where the frame has some: "true", "zero" or "infinite".
        errors: whether standard errors are asked for.
    """

    frame: str
    seed: int = 0
    samples: int = 3
    unit: float = 1.0
    scales: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    spread: float = 0.01
    bounds: str = "wide"
    missing: str = "none"
    arrays: str = "plain"
    start: str = "near"
    said: str = "true"
    errors: bool = False


def units() -> st.SearchStrategy[float]:
    """Draw a power of two or ten between 1e-12 and 1e12; often 1."""
    twos = st.integers(-40, 40).map(lambda k: 2.0**k)
    tens = st.integers(-12, 12).map(lambda k: 10.0**k)
    return st.one_of(st.just(1.0), twos, tens)


@st.composite
def cases(draw: Any, frames: tuple[str, ...] = tuple(FRAMES)) -> Case:
    """Draw a case; what its frame has no place for stays at its default."""
    name = draw(st.sampled_from(frames))
    frame = FRAMES[name]
    size = len(FORMULAS[frame.model].low)
    small = frame.dtype == "float16"  # holds 6e-5 to 65504
    return Case(
        name,
        seed=draw(st.integers(0, 2**16 - 1)),
        samples=draw(st.sampled_from((0, 3, 4) if name in ALONE else (3, 4))),
        unit=draw(st.sampled_from((1.0, 0.1, 8.0)) if small else units()),
        scales=tuple(draw(units()) for _ in range(size)),
        spread=draw(st.sampled_from((0.0, 1e-3, 1e-2, 1e-1))),
        bounds=draw(st.sampled_from(BOUNDS)) if frame.bounded else "wide",
        missing=draw(st.sampled_from(MISSING)),
        arrays=draw(st.sampled_from(ARRAYS)),
        start=draw(st.sampled_from(STARTS)),
        said=draw(st.sampled_from(("true", "true", "true", "zero", "infinite"))),
        errors=draw(st.booleans()),
    )
