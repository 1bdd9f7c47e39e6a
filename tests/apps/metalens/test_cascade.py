"""`apps.metalens.invert` by the cascade: lenses from phase maps, wherever one starts."""

import jax
import numpy as np
import pytest
from scipy.optimize import lsq_linear

from refinejax import BatchResult, Execution, Status, Stop
from refinejax.apps import metalens
from refinejax.apps.metalens import by_cascade, portions
from refinejax.apps.metalens.cascade.leap import leap
from refinejax.apps.metalens.cascade.rungs import ladder, losses, within
from refinejax.apps.metalens.cascade.scale import OTHERS, WAVELENGTH, nearest_multiple
from refinejax.apps.metalens.notes import NOTE_LINE, NOTE_RUNG, NOTE_SCALE
from refinejax.apps.metalens.problem import exact_problem
from refinejax.batch.result import DECISIVE
from refinejax.physics.metalens.lens import LASER_LINES, LOWER, UPPER, phase, turns_at
from refinejax.physics.noise import PhaseNoise
from refinejax.problems import ParameterSpace

COUNT, SIZE = 64, 32
WIDTH = np.array(UPPER) - np.array(LOWER)


@pytest.fixture(scope="module")
def made():
    return metalens.simulate(COUNT, SIZE, error=0.2, key=8)


def solve(made, **options):
    options = {"wavelength": made["wavelength"], "uncertainty": False} | options
    return metalens.invert(made["phase"], **options)


def rmse(made, result):
    return metalens.residual_rmse(made["phase"], result.params)


@pytest.fixture(scope="module")
def solved(made):
    return solve(made)


@pytest.mark.slow
def test_every_map_is_solved_without_a_start(made, solved):
    assert np.all(rmse(made, solved) <= 2e-3)
    assert solved.converged.all()
    assert "cascade" in solved.method
    assert NOTE_SCALE not in solved.notes
    np.testing.assert_array_equal(solved.params[:, WAVELENGTH], made["wavelength"])


@pytest.mark.slow
def test_the_loss_is_that_of_an_independent_formula_in_float64(made, solved):
    for i in range(5):
        xc, yc, side, length, focal = solved.params[i].astype(float)
        axis = np.linspace(-0.5, 0.5, SIZE)
        u, v = np.meshgrid(axis, axis)
        path = np.sqrt((xc + side * u) ** 2 + (yc + side * v) ** 2 + focal**2) - focal
        residual = 2 * np.pi / length * path - made["phase"][i]
        wrapped = residual - 2 * np.pi * np.round(residual / (2 * np.pi))
        found = np.sqrt(np.mean(wrapped**2))
        assert abs(found - np.sqrt(solved.loss[i])) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("error", [pytest.param(0.01, marks=pytest.mark.slow), 0.2])
def test_a_start_does_no_harm_and_is_never_made_worse(error):
    near = metalens.simulate(COUNT, SIZE, error=error, key=9)
    result = solve(near, initial=near["initial"])
    assert np.all(rmse(near, result) <= 2e-3)
    assert np.all(result.loss <= result.initial_loss)
    before = metalens.residual_rmse(near["phase"], near["initial"])
    known = near["initial"][:, WAVELENGTH] == near["wavelength"]
    np.testing.assert_allclose(np.sqrt(result.initial_loss[known]), before[known], rtol=1e-3)


KINDS = ("grain", "field", "sinusoid", "dead")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in KINDS]


@pytest.mark.slow
@pytest.mark.parametrize("noise", [*SLOW, "all but warp"])
def test_noise_leaves_no_more_than_at_the_truth(noise):
    names = KINDS if noise == "all but warp" else (noise,)
    noisy = metalens.simulate(COUNT, 64, noise=PhaseNoise.only(*names), key=3)
    floor = metalens.residual_rmse(noisy["phase"], noisy["truth"])
    solved = rmse(noisy, solve(noisy)) <= np.maximum(2e-3, 1.02 * floor)
    assert solved.mean() >= 0.98


@pytest.mark.slow
def test_missing_regions_leave_the_rest_explained(made):
    maps = made["phase"].copy()
    maps[:, 4:14, 8:20] = np.nan
    maps[::2, :, 0] = np.nan
    result = metalens.invert(maps, wavelength=made["wavelength"])
    assert np.mean(metalens.residual_rmse(maps, result.params) <= 1e-2) >= 0.95
    everywhere = metalens.residual_rmse(made["phase"], result.params)
    assert np.mean(everywhere <= 2e-2) >= 0.95


@pytest.mark.slow
def test_without_the_wavelength_the_map_is_explained_near_the_start(made):
    result = solve(made, wavelength=None, initial=made["initial"])
    assert np.mean(rmse(made, result) <= 2e-3) >= 0.98
    assert result.notes[0] == NOTE_SCALE
    assert np.all(result.loss <= result.initial_loss)
    low, high = np.float32(LOWER), np.float32(UPPER)
    assert np.all((result.params >= low) & (result.params <= high))
    good = rmse(made, result) <= 2e-3
    ratio = result.params / made["truth"]
    # all five scaled together, but for the soft directions that the map hardly determines
    assert np.median(np.ptp(ratio[good], axis=1)) < 0.05


def test_the_nearest_multiple_is_a_multiple_within_the_ranges_and_the_nearest():
    rng = np.random.default_rng(0)
    near = rng.uniform(LOWER, UPPER, (200, 5))
    lenses = rng.uniform(LOWER, UPPER, (200, 5)) * rng.uniform(0.7, 1.4, (200, 1))
    found, inside = nearest_multiple(lenses, near)
    assert np.all((found >= LOWER) & (found <= UPPER))
    factor = found[inside] / lenses[inside]
    np.testing.assert_allclose(factor, factor[:, :1] * np.ones(5), rtol=1e-9)
    for lens, point, best in zip(lenses[inside], near[inside], found[inside], strict=True):
        multiples = np.linspace(0.3, 3, 2001)[:, None] * lens
        allowed = multiples[np.all((multiples >= LOWER) & (multiples <= UPPER), axis=1)]
        if len(allowed):
            least = np.linalg.norm((allowed - point) / WIDTH, axis=1).min()
            assert np.linalg.norm((best - point) / WIDTH) <= least + 1e-9


def test_a_multiple_is_found_also_where_the_point_is_not_known():
    lenses = np.array([[10.0, 20.0, 5.0, 0.5, 50.0], [10.0, 20.0, 5.0, 0.2, 50.0]])
    found, inside = nearest_multiple(lenses, np.full((2, 5), np.nan))
    np.testing.assert_array_equal(found[0], lenses[0])
    assert found[1, WAVELENGTH] == pytest.approx(LOWER[WAVELENGTH])
    assert inside.all()


@pytest.mark.slow
def test_an_answer_does_not_depend_on_company_or_order(made, solved):
    rows = np.array([5, 3, 11])
    some = {name: array[rows] for name, array in made.items()}
    result = solve(some)
    np.testing.assert_allclose(result.params, solved.params[rows], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(result.loss, solved.loss[rows], atol=1e-6)
    lanes = solve(some, execution=Execution(lanes=2))
    np.testing.assert_allclose(lanes.loss, result.loss, atol=1e-6)


@pytest.mark.slow
def test_the_long_way_leads_to_the_same_lenses(made, solved):
    """Stopping rules of one's own are those of the last fit, which the short way does without."""
    slow = solve(made, stop=Stop())
    assert np.all(rmse(made, slow) <= 2e-3)
    sure = (solved.margins["rung"] > DECISIVE) & (slow.margins["rung"] > DECISIVE)
    assert sure.mean() > 0.7
    apart = np.abs(slow.params - solved.params) / WIDTH
    assert np.mean(np.all(apart[sure] < 1e-3, axis=1)) >= 0.97


@pytest.mark.slow
def test_the_short_way_leaves_noise_to_the_long_one():
    names = ("clean", "noisy")
    maps = {
        name: metalens.simulate(
            COUNT, SIZE, noise=PhaseNoise.only("grain") if name == "noisy" else None, key=9
        )
        for name in names
    }
    space = ParameterSpace.create((), *(np.float32(end)[OTHERS] for end in (LOWER, UPPER)))
    start = np.tile((space.lower + space.upper) / 2, (COUNT, 1)).astype(np.float32)
    found = {
        name: leap(
            exact_problem(made["phase"], made["wavelength"], space), space, start, given=False
        )
        for name, made in maps.items()
    }
    assert found["clean"].solved.mean() > 0.9
    np.testing.assert_array_less(found["clean"].loss[found["clean"].solved], 1e-6)
    assert not found["noisy"].solved.any()
    assert np.isinf(found["noisy"].loss).all()


@pytest.mark.parametrize("piston", [0.0, 0.3, -0.49])
def test_the_rungs_around_a_lens_with_another_piston(piston):
    """A piston shifts k*, also where noise carries it across half a turn."""
    maps = metalens.simulate(COUNT, SIZE, noise=PhaseNoise.only("grain"), key=6)
    lenses = maps["truth"][:, OTHERS]
    problem = exact_problem(maps["phase"], maps["wavelength"])
    here = ladder(problem, lenses)
    led = problem.replace(observation=problem.observation + np.float32(piston))
    shifted = ladder(led, lenses, np.full(COUNT, piston))
    np.testing.assert_allclose(shifted.best, here.best + piston, atol=1e-2 * here.std.max())
    np.testing.assert_allclose(shifted.least, here.least, rtol=1e-3)
    np.testing.assert_allclose(shifted.std, here.std, rtol=1e-3)
    moved = here.lens - piston * here.step
    scale = np.sqrt(np.diagonal(here.covariance, axis1=1, axis2=2))
    np.testing.assert_array_less(np.abs(shifted.lens - moved) / scale, 1e-2)
    np.testing.assert_allclose(losses(problem, lenses), here.loss, rtol=1e-12)


@pytest.mark.parametrize("options", [{"max_steps": -1}, {"max_steps": 7.5}, {"execution": 0}])
def test_options_are_checked_also_where_the_short_way_does_without_them(made, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        solve(made, **options)


@pytest.mark.slow
def test_bad_maps_end_as_statuses_and_harm_no_neighbor(made, solved):
    maps = made["phase"].copy()
    maps[0] = np.nan
    maps[2] = np.inf
    wavelength = made["wavelength"].copy()
    wavelength[3] = np.nan
    result = metalens.invert(maps, wavelength=wavelength, uncertainty=False)
    np.testing.assert_array_equal(result.status[[0, 2, 3]], Status.NONFINITE_START)
    others = np.setdiff1d(np.arange(COUNT), [0, 2, 3])
    np.testing.assert_allclose(result.loss[others], solved.loss[others], atol=1e-6)


@pytest.mark.slow
def test_a_map_of_noise_is_explained_as_badly_as_it_must_be():
    rng = np.random.default_rng(1)
    maps = rng.uniform(-np.pi, np.pi, (3, SIZE, SIZE)).astype(np.float32)
    result = metalens.invert(maps, wavelength=0.5)
    assert np.all(np.sqrt(result.loss) > 1.5)
    assert np.all(result.loss <= result.initial_loss)
    assert np.isnan(result.std[:, OTHERS]).all()


@pytest.mark.slow
def test_resumed_and_interrupted(made, solved, tmp_path, monkeypatch):
    monkeypatch.setattr("refinejax.apps.metalens.portions._PORTION", 16)
    stopped = solve(made, checkpoint=tmp_path, time_limit=1e-3)
    solved_at_once = stopped.status[:16] == Status.CONVERGED_LOSS
    assert np.all(solved_at_once | (stopped.status[:16] == Status.TIME_LIMIT))
    assert np.all(stopped.status[16:] == Status.TIME_LIMIT)
    assert np.isnan(stopped.loss[-1])
    whole = solve(made, checkpoint=tmp_path)
    np.testing.assert_allclose(whole.loss, solved.loss, atol=1e-6)
    assert len(list(tmp_path.glob("part-*.npz"))) == COUNT // 16
    monkeypatch.setattr("refinejax.apps.metalens.portions.Cascade", None)
    monkeypatch.setattr("refinejax.apps.metalens.portions.leap", None)
    again = solve(made, checkpoint=tmp_path)
    np.testing.assert_array_equal(again.params, whole.params)
    with pytest.raises(ValueError, match="another job"):
        metalens.invert(
            -made["phase"], wavelength=made["wavelength"], checkpoint=tmp_path, uncertainty=False
        )


def middle(params):
    """The phase in the middle of the window, in float64 [turns]: whole numbers apart, for rungs."""
    xc, yc, _, length, focal = np.asarray(params, float).T
    square = xc**2 + yc**2
    return square / (np.sqrt(square + focal**2) + focal) / length


@pytest.mark.slow
def test_clean_maps_are_on_the_true_rung_unless_the_margin_says_otherwise():
    many = metalens.simulate(192, SIZE, key=21)
    result = solve(many)
    off = np.round(middle(result.params) - middle(many["truth"]))
    assert np.mean(off == 0) >= 0.85  # rounding of the maps to float32 hides the others
    decided = result.margins["rung"] >= DECISIVE
    assert decided.mean() >= 0.75
    assert np.mean(off[decided] == 0) >= 0.97
    near = np.abs(result.params - many["truth"]) <= 1e-3 * WIDTH
    assert np.mean(near.all(axis=1)) >= 0.75
    (note,) = result.notes
    assert note.startswith(f"{(~decided).sum()} of 192 samples: lenses a whole number of fringes")


@pytest.mark.slow
def test_the_margin_is_that_of_fits_on_the_neighboring_rungs():
    """By brute force: the loss of Gauss–Newton on the rungs beside the answer, in float64."""
    grain = PhaseNoise.only("grain").replace(grain_std=0.003)
    made = metalens.simulate(32, SIZE, noise=grain, key=4)
    result = solve(made)
    lenses = result.params[:, OTHERS]
    rungs = ladder(exact_problem(made["phase"], made["wavelength"]), lenses)
    checked = 0
    for i in range(32):
        length = float(result.params[i, WAVELENGTH])
        steps = (-2, -1, 0, 1, 2)
        fits = {k: rung_loss(made["phase"][i], lenses[i], length, k) for k in steps}
        near = {k: loss for k, (loss, _) in fits.items() if loss < 4 * fits[0][0]}
        for k, loss in near.items():
            excess = 0.5 * ((k - rungs.best[i]) / rungs.std[i]) ** 2
            predicted = (rungs.least[i] + rungs.unit[i] * excess) / (2 * np.pi) ** 2
            assert abs(predicted / loss - 1) < 0.05, (i, k)
        if len(near) < 3 or not all(inside for _, inside in fits.values()):
            continue  # bounds, or margins that are large in any case
        least = min(loss for k, loss in near.items() if k)
        margin = (least - near[0]) * (2 * np.pi) ** 2 / rungs.unit[i]
        if abs(rungs.best[i]) < 0.5:  # or rungs beyond these are as good
            assert abs(result.margins["rung"][i] - margin) < 0.1 * abs(margin) + 0.5
            checked += 1
    assert checked >= 3


@jax.jit
def turns(x, length):
    axis = np.linspace(-0.5, 0.5, SIZE)
    return turns_at(x, length, axis[None], axis[:, None]).ravel()


jacobian = jax.jit(jax.jacfwd(turns))


def rung_loss(image, lens, length, k):
    """Return the loss [turns²] of the best lens k rungs further, and if it is in the ranges."""
    with jax.enable_x64(True):
        model = lambda x: turns(x, length)  # noqa: E731
        x = np.asarray(lens, float)
        start, seen = np.asarray(model(x)), image.ravel().astype(float) / (2 * np.pi)
        aim = start - (start - seen - np.round(start - seen)) - k
        for _ in range(10):
            J = np.asarray(jacobian(x, length))
            size = np.linalg.norm(J, axis=0)
            x = x - np.linalg.lstsq(J / size, np.asarray(model(x)) - aim, rcond=None)[0] / size
        low, high = (np.array(end)[OTHERS] for end in (LOWER, UPPER))
        inside = bool(np.all((x >= low) & (x <= high)))
        return float(np.mean((np.asarray(model(x)) - aim) ** 2)), inside


def test_optima_within_bounds_are_those_of_a_quadratic_program():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(60, 4, 4)) + 2 * np.eye(4)
    optima = rng.normal(scale=1.5, size=(60, 4))
    inverse = np.linalg.inv(factors)  # the loss is |F(x − optimum)|²/2
    found, cost = within(optima, inverse @ inverse.swapaxes(1, 2), -np.ones(4), np.ones(4))
    assert np.all(np.abs(found) <= 1)
    fits = [lsq_linear(F, F @ x, (-1, 1)) for F, x in zip(factors, optima, strict=True)]
    best = np.array([fit.cost for fit in fits])
    assert np.all(cost >= best - 1e-6)
    assert np.mean(cost <= best + 1e-6) > 0.7  # the active set only grows
    assert np.mean(cost <= 1.5 * best + 1e-6) > 0.95
    inside = np.all(np.abs(optima) <= 1, axis=1)
    np.testing.assert_array_equal(found[inside], optima[inside])
    assert np.all(cost[inside] == 0)


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["grain", "dead"])
def test_the_standard_error_of_the_rung_is_that_of_noise(noise):
    """At the truth k* is 0 but for noise; its scatter in standard errors is that of a t value."""
    maps = metalens.simulate(200, SIZE, noise=PhaseNoise.only(noise), key=6)
    lenses = maps["truth"][:, OTHERS]
    rungs = ladder(exact_problem(maps["phase"], maps["wavelength"]), lenses)
    z = rungs.best / rungs.std
    z = z[np.sqrt(rungs.loss) > 1e-2]  # of some maps no pixel is dead
    assert len(z) > 50
    assert 0.5 < np.median(np.abs(z)) / 0.6745 < 1.3
    assert np.mean(np.abs(z) > 3) < 0.05


@pytest.mark.slow
def test_noise_hides_the_rungs_and_the_result_says_so(tmp_path):
    noisy = metalens.simulate(COUNT, SIZE, noise=PhaseNoise.only("grain"), key=3)
    result = solve(noisy)
    hidden = result.undecided("rung")
    assert hidden.mean() > 0.8
    assert result.notes == (NOTE_RUNG.format(hidden.sum(), COUNT),)
    result.save(tmp_path / "result.npz")
    kept = BatchResult.load(tmp_path / "result.npz")
    np.testing.assert_array_equal(kept.margins["rung"], result.margins["rung"])


@pytest.mark.slow
def test_the_margin_of_a_map_of_noise_is_not_known():
    rng = np.random.default_rng(1)
    maps = rng.uniform(-np.pi, np.pi, (3, SIZE, SIZE)).astype(np.float32)
    result = metalens.invert(maps, lines=(0.45, 0.6), uncertainty=False)
    assert np.isnan(result.margins["rung"]).all()
    assert np.isnan(result.margins["line"]).all()
    assert np.isin(result.params[:, WAVELENGTH], np.float32([0.45, 0.6])).all()
    assert np.all(result.loss <= result.initial_loss)


@pytest.mark.slow
def test_lines_are_told_apart_as_far_as_the_ranges_do():
    lines = np.array(LASER_LINES)
    # on axis and small: one line; the middle of the ranges: several
    edge = np.array([[40.0, 30.0, 39.5, 0.0, 11.0], [30.0, -60.0, 36.0, 0.0, 10.4]])
    ample = np.array([[20.0, 130.0, 12.0, 0.0, 40.0]])
    truth = np.tile(np.concatenate([edge, ample]), (4, 1))
    truth[:, WAVELENGTH] = np.repeat(lines, 3)
    maps = np.stack([metalens.predict(lens.astype(np.float32), SIZE) for lens in truth])
    result = metalens.invert(maps, lines=lines, uncertainty=False)
    each = [metalens.invert(maps, wavelength=line, uncertainty=False) for line in lines]
    rmse = np.stack([metalens.residual_rmse(maps, fit.params) for fit in each])
    assert np.all(rmse[np.repeat(np.arange(4), 3), np.arange(12)] < 2e-3)  # the true one fits
    found = metalens.residual_rmse(maps, result.params)
    np.testing.assert_allclose(found, rmse.min(axis=0), atol=1e-3)  # as well as by brute force
    chosen = np.argmin(np.abs(result.params[:, [WAVELENGTH]] - lines), axis=1)
    several = np.sum(rmse < 2e-3, axis=0) > 1
    assert several.any()
    assert (~several).any()
    one = ~several
    np.testing.assert_array_equal(lines[chosen[one]], truth[one, WAVELENGTH])
    np.testing.assert_array_equal(result.undecided("line"), several)
    note = NOTE_LINE.format(several.sum(), 12, "the middle of the ranges")
    assert note in result.notes
    assert NOTE_SCALE not in result.notes
    # the start decides between equals, and is not left for something worse
    led = metalens.invert(maps, lines=lines, initial=truth.astype(np.float32), uncertainty=False)
    chosen = np.argmin(np.abs(led.params[:, [WAVELENGTH]] - lines), axis=1)
    np.testing.assert_array_equal(lines[chosen], truth[:, WAVELENGTH])
    assert np.all(led.loss <= led.initial_loss)


@pytest.mark.slow
def test_fits_again_within_the_ranges_keep_the_time_limit(made, monkeypatch):
    pipelines, left = [], []
    solve_batch = portions.solve

    def noted(pipeline, *args, **options):
        pipelines.append(pipeline)
        left.append(pipeline.deadline.left())
        return solve_batch(pipeline, *args, **options)

    monkeypatch.setattr(portions, "solve", noted)
    far = {name: array.copy() for name, array in made.items()}
    narrow = {"wavelength": None, "initial": far["initial"], "time_limit": 1000.0}
    inside = lambda lenses, near: (lenses, np.arange(len(lenses)) > 1)  # noqa: E731
    monkeypatch.setattr(by_cascade, "nearest_multiple", inside)
    result = solve(far, **narrow)
    assert len(left) == 2
    assert pipelines[1] is pipelines[0]
    assert 0 < left[1] < left[0] <= 1000.0
    assert np.all(result.loss <= result.initial_loss)
    late = solve(far, **narrow | {"time_limit": 1e-6})
    assert left[3] == 0
    assert np.all(late.status == Status.TIME_LIMIT)


@pytest.mark.slow
def test_limits_and_rules_are_kept(made, solved):
    rough = solve(made, max_steps=0)
    assert np.all(rough.steps == 0)
    assert np.median(rough.loss) > 10 * np.median(solved.loss)
    early = solve(made, stop=Stop(target=1.0))
    assert np.any(early.status == Status.TARGET_REACHED)
    small = solve(made, execution=Execution(memory_limit="4MB"))
    np.testing.assert_allclose(small.loss, solved.loss, atol=1e-6)
    with pytest.raises(ValueError, match="memory_limit"):
        solve(made, execution=Execution(memory_limit="1kB"))


@pytest.mark.slow
def test_small_maps_go_another_way():
    made = metalens.simulate(4, 8, error=1e-4, key=1)
    result = solve(made, initial=made["initial"])
    assert result.method.startswith("lm")
    with pytest.raises(ValueError, match="12 × 12"):
        solve(made, method="cascade")


@pytest.mark.slow
def test_double_precision_is_kept():
    with jax.enable_x64(True):
        truth = np.array([[120.0, -80.0, 15.0, 0.55, 40.0]])
        maps = np.asarray(phase(truth[0], SIZE))[None]
        maps = maps - 2 * np.pi * np.round(maps / (2 * np.pi))
        result = metalens.invert(maps, wavelength=0.55, uncertainty=False)
        assert result.params.dtype == np.float64
        assert np.sqrt(result.loss[0]) < 1e-8
        np.testing.assert_allclose(result.params, truth, rtol=1e-7)


@pytest.mark.slow
def test_the_result_says_what_the_map_determines(made, solved):
    some = {name: array[:4] for name, array in made.items()}
    known = solve(some)
    matrix = known.covariance().matrix
    assert matrix.shape == (4, 5, 5)
    np.testing.assert_array_equal(matrix[:, WAVELENGTH], 0)
    free = solve(some, wavelength=None)
    words = free.identifiability().summary()
    assert "xc, yc, S, wavelength, focal_length scale together" in words
