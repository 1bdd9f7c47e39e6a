"""``memory_limit`` picks the lanes by what the compiled program needs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import refinejax as rj
from refinejax.batch import engine
from refinejax.batch.lanes import cycle
from refinejax.batch.plan import fit_memory, make_plan, parse_bytes

SGD = rj.Gradient(optax.sgd, {"learning_rate": 0.1})
PIXELS = 5000
COUNT = 60


def line(params):
    return params[0] + params[1] * jnp.linspace(0, 1, PIXELS)


def fit(limit, monkeypatch, **options):
    """Refine under a limit; return the result, and lanes and bytes of every program used."""
    used = []

    def watch(rules, lanes, rows, quota, cap, *, layout, mesh):
        if not used:
            lowered = cycle.lower(rules, lanes, rows, quota, cap, layout=layout, mesh=mesh)
            sizes = lowered.compile().memory_analysis()
            total = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
            needed = total + sizes.temp_size_in_bytes - sizes.alias_size_in_bytes
            used.append((lanes.ids.shape[0], needed))
        return cycle(rules, lanes, rows, quota, cap, layout=layout, mesh=mesh)

    with monkeypatch.context() as patched:
        patched.setattr(engine, "cycle", watch)
        observed = np.tile(np.asarray(line(jnp.ones(2))), (COUNT, 1))
        problem = rj.InverseProblem(line, observed)
        start = np.zeros((COUNT, 2), np.float32)
        options = {"max_steps": 30} | options
        result = rj.run_batch(
            SGD, problem, start, execution=rj.Execution(memory_limit=limit), **options
        )
    return result, *used[0]


@pytest.mark.slow
def test_the_program_stays_within_the_limit_and_more_memory_gives_more_lanes(monkeypatch):
    (small, few, needed), (large, many, more) = (
        fit(limit, monkeypatch) for limit in ("600kB", 2_000_000)
    )
    assert needed <= 600_000
    assert more <= 2_000_000
    assert 1 <= few < many <= COUNT
    assert more > 1_000_000  # it is used, too
    np.testing.assert_allclose(small.params, large.params, rtol=1e-5)


@pytest.mark.slow
def test_no_more_lanes_are_taken_than_there_are_samples(monkeypatch):
    _, lanes, _ = fit("100 GB", monkeypatch)
    assert lanes <= 2 * COUNT


def test_a_limit_too_small_for_a_single_lane_says_what_one_needs(monkeypatch):
    with pytest.raises(ValueError, match=r"memory_limit: one lane .* needs \d+ bytes"):
        fit("2 kB", monkeypatch)


def test_a_backend_that_does_not_tell_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setattr(jax.stages.Compiled, "memory_analysis", lambda _: None)
    with pytest.raises(ValueError, match=r"memory_limit: .*lanes="):
        fit("1 GB", monkeypatch)


def test_one_lane_is_taken_where_just_one_fits(monkeypatch):
    sizes = {1: 100, 4: 400, 8: 440}  # by these two, not even one would fit
    plan = fit_memory(lambda plan: sizes[plan.lanes], 110, make_plan(4, 4, None), 4)
    assert plan.lanes == 1


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("30GB", 30e9),
        ("30 gb", 30e9),
        ("1.5G", 1.5e9),
        ("512 MiB", 512 * 2**20),
        ("512MB", 512e6),
        ("1KiB", 1024),
        ("2k", 2000),
        ("1TiB", 2**40),
        ("3T", 3e12),
        (" 7 ", 7),
        ("7B", 7),
        (".5kB", 500),
        (1e9, 1e9),
        (123, 123),
        (np.int64(123), 123),
        (np.float32(0.5), 0.5),
    ],
)
def test_bytes_are_read_from_text_and_numbers(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "GB", "30 parsecs", "1.2.3GB", "-3GB", ".", "nan", "0", 0, -1, np.nan, np.inf, True],
)
def test_what_is_no_size_is_refused_and_shown(text):
    with pytest.raises(ValueError, match=r"memory_limit: expected .*got"):
        parse_bytes(text)


@pytest.mark.parametrize("limit", [[3], None])
def test_a_size_of_another_type_is_refused(limit):
    with pytest.raises(ValueError, match="memory_limit"):
        parse_bytes(limit)
