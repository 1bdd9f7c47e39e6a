"""Forward models outside JAX that fail, clip their input, or run where warnings are errors."""

import warnings

import numpy as np
import pytest

import refinejax as rj

T = np.linspace(0.0, 1.0, 20)
OBSERVED = np.float32(2 * np.exp(-3 * T))


def refine(model, observations, initial, **options):
    return rj.refine(
        model, observations, initial, differentiable=False, method="random", max_steps=30, **options
    )


def test_a_model_that_clips_in_place_changes_nothing_of_ours():
    def clips(params, scale):
        params[1] = max(params[1], 0.1)
        prediction = params[0] * np.exp(-params[1] * T) * scale[0]
        scale[0] = np.nan
        return prediction

    start, context = np.float32([[1.0, -5.0]] * 2), np.ones((2, 1), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = refine(clips, np.stack([OBSERVED] * 2), start, context=context)
    np.testing.assert_array_equal(start, [[1, -5]] * 2)
    np.testing.assert_array_equal(context, 1)
    begin = np.mean((np.exp(-0.1 * T) - OBSERVED) ** 2)
    np.testing.assert_allclose(result.initial_loss, begin, rtol=1e-5)
    assert np.all(result.loss < result.initial_loss)

    def clips_rows(params):
        params[:, 1] = np.maximum(params[:, 1], 0.1)
        if len(params) > 1 and np.any(params[:, 0] > 1.2):
            raise RuntimeError  # the call that is repeated row by row must not see the change
        return params[:, :1] * np.exp(-params[:, 1:] * T)

    kept = start[0].copy()
    result = refine(clips_rows, OBSERVED, kept, vectorized=True)
    np.testing.assert_array_equal(kept, start[0])
    assert result.loss < result.initial_loss


def fails_above(limit):
    def decay(params):
        if params[1] > limit:
            raise RuntimeError("does not settle")
        return params[0] * np.exp(-params[1] * T)

    return decay


def test_where_warnings_are_errors_a_failure_stays_with_its_candidate():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = refine(fails_above(3.05), OBSERVED, np.float32([1.9, 3.0]), key=1)
    assert 0 < result.loss < result.initial_loss
    with pytest.warns(RuntimeWarning, match="RuntimeError: does not settle; .* counts as NaN"):
        again = refine(fails_above(3.05), OBSERVED, np.float32([1.9, 3.0]), key=1)
    np.testing.assert_array_equal(result.params, again.params)


@pytest.mark.parametrize("bad", [0, 1, 2])
@pytest.mark.filterwarnings("ignore:forward")
def test_a_start_that_fails_is_the_matter_of_its_sample_whichever_it_is(bad):
    starts = np.tile(np.float32([1.0, 2.5]), (3, 1))
    starts[bad, 1] = 9
    result = refine(fails_above(4.0), np.stack([OBSERVED] * 3), starts)
    assert result.status[bad] == rj.Status.NONFINITE_START
    others = np.delete(np.arange(3), bad)
    assert np.all(result.loss[others] < result.initial_loss[others])


def test_a_model_that_fails_at_every_start_is_refused_in_its_own_words():
    starts = np.tile(np.float32([1.0, 9.0]), (3, 1))
    with pytest.raises(ValueError, match="RuntimeError: does not settle") as caught:
        refine(fails_above(4.0), np.stack([OBSERVED] * 3), starts)
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(ValueError, match="RuntimeError: does not settle"):
        refine(fails_above(4.0), OBSERVED, starts[0])
