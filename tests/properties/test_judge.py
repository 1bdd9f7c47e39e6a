"""The judge of drawn fits knows right from wrong: it is given answers that no fit has made."""

import numpy as np
import pytest

from benchmarks.core._drawn import judge as judges
from benchmarks.core._drawn.calls import Answer, Broken, Refused, is_refusal
from benchmarks.core._drawn.cases import Case
from benchmarks.core._drawn.data import as_given, make
from benchmarks.core._drawn.judge import Reference, judge

CASE = Case("decay-float64", seed=3, unit=1e-9, scales=(1e6, 1e-3), spread=0.01, errors=True)


def perfect(case):
    """The answer of SciPy, with the errors of the linear theory."""
    given = as_given(case, make(case))
    references = [Reference(case, given, i) for i in range(case.samples)]
    fits = [one.least(one.truth) for one in references]
    variances = [one.squares(x) / (24 - 2) for one, x in zip(references, fits, strict=True)]
    columns = [one.jacobian(x) for one, x in zip(references, fits, strict=True)]
    std = [
        np.sqrt(s2 * np.diagonal(np.linalg.inv(J.T @ J))) * given.scale
        for s2, J in zip(variances, columns, strict=True)
    ]
    loss = np.array([22 * s2 / 24 for s2 in variances]) * given.unit**2
    params, ones = np.array(fits) * given.scale, np.ones(case.samples)
    return Answer(params, loss, 10 * loss, ones, ones > 0, np.array(std), ())


def judged(monkeypatch, answer, case=CASE):
    monkeypatch.setattr(judges, "fit", lambda case, drawn: answer)
    return judge(case)


def test_the_answer_of_scipy_is_right(monkeypatch):
    assert judged(monkeypatch, perfect(CASE)) == (("right",) * 3, ())


@pytest.mark.parametrize(("errors", "right"), [(0.1, True), (1.0, False)])
def test_an_answer_that_is_off_is_right_within_a_fraction_of_its_error(monkeypatch, errors, right):
    answer = perfect(CASE)
    verdict = judged(monkeypatch, answer._replace(params=answer.params + errors * answer.std))
    assert (verdict.outcomes == ("right",) * 3) == right
    assert (verdict.faults == ()) == right


def test_an_answer_that_is_off_is_no_fault_where_it_is_not_called_converged(monkeypatch):
    answer = perfect(CASE)
    moved = answer._replace(params=answer.params + answer.std, converged=answer.converged & False)
    assert judged(monkeypatch, moved) == (("not called converged",) * 3, ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a._replace(std=2 * a.std), "standard errors"),
        (lambda a: a._replace(std=0 * a.std), "standard errors"),
        (lambda a: a._replace(loss=0 * a.loss), "loss 0 where"),
        (lambda a: a._replace(initial_loss=a.loss / 2), "above the initial"),
        (lambda a: a._replace(params=a.params * 100), "outside"),
        (lambda a: a._replace(params=a.params * np.nan), "not finite"),
    ],
)
def test_what_is_wrong_is_said(monkeypatch, change, words):
    verdict = judged(monkeypatch, change(perfect(CASE)))
    assert any(words in fault for fault in verdict.faults)


def test_only_what_is_odd_may_be_refused(monkeypatch):
    refusal = Refused("noise: expected standard deviations above 0")
    assert judged(monkeypatch, refusal).faults == (f"refused: {refusal.said}",)
    assert judged(monkeypatch, refusal, CASE._replace(bounds="inverted")) == (("refused",), ())
    assert judged(monkeypatch, Broken("TypeError: no")).faults == ("TypeError: no",)


def test_a_refusal_names_an_argument():
    assert is_refusal("noise: expected standard deviations above 0")
    assert is_refusal("bounds of [0]: lower 1.0 is not below upper 0.0")
    assert not is_refusal("The truth value of an array is ambiguous")
    assert not is_refusal("numpy: masked arrays are not supported")
