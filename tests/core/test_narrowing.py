"""Where cutting float64 to float32 loses what matters."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import refinejax as rj
from refinejax._arguments import Arrays, lost_notes
from refinejax._narrowing import check_integers, narrowing_notes, range_notes

TIMES = np.linspace(0, 1, 50)
LOSS = np.ones(1)


def notes(observations=TIMES, initial=(1.0,), context=None, noise=None, loss=LOSS):
    arrays = Arrays.read(observations, np.array(initial), context).with_axis()
    return lost_notes(arrays, noise, loss)


def test_ordinary_numbers_lose_nothing():
    assert notes() == notes(np.float32(1e8) + np.float32(TIMES)) == ()
    assert notes(1000 + TIMES, noise=0.01) == ()
    assert notes(np.arange(50) + 2**23) == ()
    assert notes(context=1.5 + TIMES) == notes(context=np.full(50, 0.1)) == ()
    assert notes(np.where(TIMES > 0.5, np.nan, TIMES)) == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"observations": 1e8 + TIMES}, "observations.*their spread"),
        ({"observations": 1_700_000_000 + np.arange(50)}, "observations"),
        ({"observations": 1e-50 * TIMES}, "observations"),
        ({"observations": 1000 * TIMES, "noise": 1e-4}, "observations.*noise"),
        ({"observations": 1e6 * TIMES, "loss": np.full(1, 0.25)}, "residual at the start"),
        ({"context": 1.7e9 + np.arange(50.0)}, "context"),
        ({"context": {"x": np.stack([1.7e9 + TIMES, TIMES], -1)}}, r"context\['x'\]"),
    ],
)
def test_what_is_lost_is_named(given, said):
    (note,) = notes(**given)
    assert re.search(said, note)
    assert "enable_x64" in note
    with jax.enable_x64(True):
        assert notes(**given) == ()


def test_large_samples_and_single_numbers_are_looked_at_too():
    for given in (np.full((2, 1 << 21), 0.1), np.full(3, 0.1)):
        given = given + 1e8 + np.arange(given.shape[-1]) % 7
        arrays = Arrays.read(given, np.ones((len(given), 1)), None)
        assert len(lost_notes(arrays, None, np.full(len(given), 9.0))) == 1


def test_numbers_beyond_float32_are_refused():
    with pytest.raises(ValueError, match=r"observations: .*beyond the greatest of float32"):
        notes(1e39 * TIMES)
    for beyond in ({"observations": 1e39 * TIMES}, {"initial": np.array([1e39])}):
        given = {"observations": TIMES, "initial": np.ones(1), **beyond}
        with pytest.raises(ValueError, match=r"beyond the greatest of float32"):
            rj.refine(lambda params: params[0] * TIMES, **given)
    check_integers(np.array([2**31 - 1]), "context")
    with pytest.raises(ValueError, match="context: whole numbers up to 2147483648"):
        check_integers(np.array([2**31]), "context")


def test_starts_are_compared_between_samples():
    starts = 1.7e9 + np.arange(8.0)[:, None]
    (note,) = narrowing_notes(8, data={}, params={"initial": starts})
    assert note.startswith("initial")
    assert not narrowing_notes(8, data={}, params={"initial": np.random.rand(8, 3)})  # noqa: NPY002


def test_bounds_with_few_numbers_between_them_are_named():
    (note,) = range_notes(np.float32([0, 1e8]), np.float32([1, 1e8 + 64]))
    assert note.startswith("bounds: between 100000000.0 and 100000064.0")
    assert not range_notes(np.float32([0, -np.inf]), np.float32([1, np.inf]))


def test_the_remedy_works_within_the_same_process():
    def offset(params):
        return 1e8 + params[0] * jnp.exp(-params[1] * TIMES)  # NumPy's float64 is read by JAX

    observed = 1e8 + 2 * np.exp(-3 * TIMES)
    start = np.array([1.5, 2.5])
    assert rj.refine(offset, observed, start, method="lm", max_steps=1).notes
    with jax.enable_x64(True):
        mended = rj.refine(offset, observed, start, method="lm")
    assert not mended.notes
    np.testing.assert_allclose(mended.params, [2, 3], rtol=1e-5)
