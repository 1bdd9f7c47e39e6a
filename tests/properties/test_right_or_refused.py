"""Drawn fits are right, or not called converged, or refused in one line (law 16).

`benchmarks.core._drawn` draws the cases and judges them against SciPy in float64. `make test` draws
200 cases, always the same; `make test-properties` more than 2,000 others, every time. A case that
has failed is added to `FAILED_ONCE`. Compiling takes the time: some frames wait for the night.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.core._drawn.cases import FRAMES, Case, cases
from benchmarks.core._drawn.judge import judge
from benchmarks.core.right_or_refused import measure
from benchmarks.harness import Options

FAILING = [
    Case("line-stream", seed=491, unit=1e-12, scales=(2.0**40, 1e-5), spread=0.1, start="zero"),
]
FAILED_ONCE = [
    *FAILING,
    Case("line-lbfgs", seed=1, unit=2.0**-30, scales=(2.0**10, 2.0**-20)),
    Case("line-lbfgs", seed=15349, scales=(2.0**-9, 1e10), arrays="strided"),
    Case("line-lbfgs", seed=65535, unit=2.0**-21, spread=0.1, start="far"),
    Case("line-lbfgs", unit=2.0**-28, scales=(2.0**-28, 1.0), spread=0.0, missing="infinite"),
    Case("decay-lbfgs", seed=1, unit=2.0**-30),
    Case("decay-lbfgs", seed=4794, unit=1e10, spread=0.1, bounds="one-sided", missing="some"),
    Case("line-dict", seed=1293, unit=2.0**28, bounds="huge", arrays="big-endian"),
    Case("line-dict", seed=10545, unit=2.0**-9, bounds="huge", missing="few", errors=True),
    Case("line-stream", seed=8865, unit=2.0**-39, scales=(1.0, 1e8), spread=1e-3, start="truth"),
    Case("cubic", seed=2293, samples=4, unit=512.0, spread=0.0, start="shared"),
    Case("decay-lbfgs", seed=16, unit=1e-5, bounds="inverted"),
    Case("line", seed=485, samples=4, unit=0.5, spread=1e-3, missing="mask", start="far"),
    Case("line", seed=232, spread=0.0, missing="mask", errors=True),
    Case("line-bounded", seed=628, samples=0, unit=2.0**36, bounds="with None"),
    Case("line-bounded", samples=0, unit=1e-6, scales=(2.0**-15, 2.0**-30), bounds="inverted"),
    Case("line-float64", seed=15583, scales=(2.0**23, 0.1), start="far", said="infinite"),
    Case("line-float16", seed=115, samples=4, spread=0.0, missing="few", errors=True),
    Case("line-dict", seed=22, samples=4, bounds="tight", missing="mask", start="outside"),
    Case("line-black-box", seed=2186, bounds="numbers", missing="few", arrays="big-endian"),
    Case("line-stream", seed=523, samples=4, missing="mask", start="NaN"),
    Case("line-stream", seed=1654, samples=4, spread=0.0, arrays="big-endian"),
    Case("cubic", seed=32521, samples=4, spread=1e-3, missing="mask", start="truth"),
    Case("decay-float64", seed=7379, unit=16384.0, bounds="pairs", start="far"),
    Case("decay-float64", seed=6555, unit=1e8, bounds="equal"),
    Case("peak-batch", spread=0.0, bounds="infinite", missing="mask", said="zero"),
]
# others have what is in them
SLOW = ("line-float64", "line-float16", "decay-lbfgs", "decay-float64", "peak", "peak-batch")
STANDING = {  # faults that stand: frame → why
    "line-stream": "from a start of 0, squares of columns of 1e-24 underflow in float32",
}
QUICK_OR_SLOW = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FRAMES
]


def drawn():
    """Every frame, marked slow, and as failing where a fault stands."""
    for frame in FRAMES:
        marks = [pytest.mark.slow] if frame in SLOW else []
        if frame in STANDING:
            marks.append(pytest.mark.xfail(reason=STANDING[frame], strict=True))
        yield pytest.param(frame, marks=marks)


def failed_once():
    """The cases above, and the name of the frame, whose programs they share."""
    for case in FAILED_ONCE:
        marks = [pytest.mark.slow] if case.frame in SLOW else []
        if case in FAILING:
            marks.append(pytest.mark.xfail(reason=STANDING[case.frame], strict=True))
        yield pytest.param(case.frame, case, id=str(tuple(case)), marks=marks)


@pytest.mark.parametrize("frame", [*drawn()])
@given(data=st.data())
def test_a_drawn_fit_is_right_or_not_converged_or_refused(frame, data):
    case = data.draw(cases((frame,)))
    assert judge(case).faults == (), case


@pytest.mark.parametrize(("frame", "case"), [*failed_once()])
def test_a_case_that_has_failed_stays_right(frame, case):
    assert judge(case).faults == ()


@pytest.mark.parametrize("frame", QUICK_OR_SLOW)
def test_a_plain_fit_is_right(frame):
    verdict = judge(Case(frame))
    assert verdict.faults == ()
    assert set(verdict.outcomes) == {"right"}


@pytest.mark.slow
def test_the_figures_count_every_case():
    data = measure(Options(quick=True))
    whole = data["rows"][0]
    assert whole["cases"] == data["settings"]["cases"] >= 40
    assert sum(whole["outcomes"].values()) >= whole["cases"]
