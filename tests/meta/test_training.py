"""Meta-training: what it learns, what it is validated on, and that a resume is exact."""

import dataclasses
import json
import shutil
import tomllib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from refinejax import Execution, Gradient, Status, cli
from refinejax.apps.metalens.tasks import LensTasks
from refinejax.learned import Imitation, RuleConfig, UpdateConfig
from refinejax.meta import (
    Antithetic,
    Curriculum,
    FullUnroll,
    Trajectory,
    TruncatedUnroll,
    convergence,
    meta_task,
    meta_train,
    nres,
    pes,
    traces,
)
from refinejax.meta.convergence import mean_score
from refinejax.meta.plans import plan_refiner
from refinejax.meta.training import MetaTraining
from refinejax.models import load_model
from refinejax.tasks.distribution import Split
from refinejax.tasks.noisy_quadratics import NoisyQuadratics
from refinejax.tasks.quadratics import Quadratics
from refinejax.tasks.rastrigins import Rastrigins
from refinejax.training import TrainingConfig, train

KEY = jax.random.key(0)


def rate(key):
    return Gradient(sgd, {"log_rate": jnp.float32(-3.0)})


def sgd(log_rate):
    return optax.sgd(jnp.exp(log_rate))


NOISY = Trajectory(NoisyQuadratics(size=2, noise=1.0), rate, horizon=20, scale="plain", judged=True)


def config(**options):
    return TrainingConfig(
        **{"optimizer": "adam", "learning_rate": 0.05, "log_every": 1, "validate_every": 0}
        | options
    )


@pytest.mark.slow
@pytest.mark.parametrize("make", [pes, nres, FullUnroll])
def test_the_best_rate_is_learned_in_windows_much_shorter_than_the_horizon(make):
    if make is FullUnroll:
        estimator = FullUnroll(NOISY, batch=256, parts=1)
    else:
        estimator = make(NOISY, window=2, lanes=256, std=0.1)
    found = meta_train(estimator, config(steps=300, average=0.9), count=16)
    rates = np.linspace(0.05, 1.5, 200)
    means = jax.vmap(lambda r: NOISY.tasks.expected(r, 20))(rates)
    best = rates[np.argmin(means)]
    learned = float(jnp.exp(found.weights.numbers["log_rate"]))
    reached = float(NOISY.tasks.expected(learned, 20))
    assert reached < means.min() + 0.02 * (
        float(NOISY.tasks.expected(np.exp(-3), 20)) - means.min()
    )
    assert abs(np.log(learned / best)) < 0.3


@pytest.mark.slow
def test_truncated_backpropagation_learns_too_small_a_rate():
    tasks = NoisyQuadratics(noise=1.0)
    inner = Trajectory(tasks, rate, horizon=100, scale="plain", judged=True)
    estimator = TruncatedUnroll(inner, window=5, lanes=256)
    found = meta_train(estimator, config(steps=400, average=0.95), count=16)
    rates = np.linspace(0.05, 1.0, 400)
    best = rates[np.argmin(jax.vmap(lambda r: tasks.expected(r, 100))(rates))]
    assert float(jnp.exp(found.weights.numbers["log_rate"])) < 0.87 * best


@pytest.mark.slow
@pytest.mark.parametrize("make", [pes, TruncatedUnroll])
def test_an_interrupted_training_goes_on_bit_for_bit_with_its_episodes(make, tmp_path):
    sizes = {"parts": 2} if make is TruncatedUnroll else {}
    estimator = make(NOISY, window=5, lanes=4, **sizes)
    settings = {"steps": 9, "checkpoint_every": 3, "validate_every": 3, "schedule": "constant"}
    whole = meta_train(estimator, config(**settings), tmp_path / "whole", count=4)
    for step in ("6", "9"):
        shutil.rmtree(tmp_path / "whole" / "checkpoints" / step)
    again = meta_train(estimator, config(**settings), tmp_path / "whole", count=4)
    for a, b in zip(*(jax.tree.leaves(t.weights) for t in (whole, again)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [line["loss"] for line in whole.history if "loss" in line] == [
        line["loss"] for line in again.history if "loss" in line
    ]
    assert again.step == 9


@pytest.mark.slow
def test_validation_is_on_other_tasks_and_says_how_fast_they_converge(tmp_path):
    inner = Trajectory(Quadratics(size=2), rate, horizon=4)
    estimator = FullUnroll(inner, batch=4)
    others = {"wide": Quadratics(3.0, size=2)}
    task = meta_task(estimator, others=others, count=8, steps=6, target=0.5)
    assert isinstance(task.validation.tasks, Split)
    assert task.estimator.inner.tasks.part == "train"
    assert task.validation.tasks.part == task.others["wide"].tasks.part == "validation"
    found = meta_train(
        estimator,
        config(steps=2, validate_every=1),
        tmp_path,
        others=others,
        count=8,
        steps=6,
        target=0.5,
    )
    assert found.status is Status.MAX_STEPS
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    checked = [line for line in lines if "validation_loss" in line]
    assert [line["step"] for line in checked] == [0, 1, 2]
    seen = jax.jit(lambda key: traces(task.validation, rate(KEY), key, count=8, steps=6))(
        _validation_key()
    )
    assert seen.shape == (8, 7)
    measured = convergence(seen, 0.5)
    for name in ("final", "steps", "reached", "diverged"):
        np.testing.assert_allclose(checked[0][f"validation_{name}"], measured[name], rtol=1e-4)
    np.testing.assert_allclose(
        checked[0]["validation_loss"], np.mean(np.log(seen[:, 1:])), rtol=1e-4
    )
    assert checked[0]["validation_wide_final"] != checked[0]["validation_final"]


def _validation_key():
    return jax.random.split(jax.random.key(0), 3)[2]


def test_what_diverges_counts_as_ten_times_the_start_in_a_mean():
    scores = jnp.array([[2.0, 1.0, 4.0], [1.0, 30.0, jnp.nan]])
    np.testing.assert_allclose(mean_score(scores, "plain"), (1 + 4 + 10 + 10) / 4)
    np.testing.assert_allclose(mean_score(scores, "relative"), (0.5 + 2 + 10 + 10) / 4)
    np.testing.assert_allclose(mean_score(scores, "last"), (4 + 10) / 2)
    np.testing.assert_allclose(mean_score(scores, "log_last"), np.log([4, 10]).mean(), rtol=1e-6)
    np.testing.assert_allclose(mean_score(scores, "log"), np.mean(np.log([1, 4, 10, 10])))
    np.testing.assert_allclose(mean_score(scores, "last"), (4 + 10) / 2)


def test_measures_of_convergence():
    scores = jnp.array([[8.0, 4.0, 2.0, 1.0], [8.0, 8.0, 8.0, 4.0], [1.0, 2.0, 5.0, 20.0]])
    scores = jnp.concatenate([scores, jnp.array([[1.0, 0.1, jnp.nan, jnp.nan]])])
    found = convergence(scores, 0.25)
    np.testing.assert_allclose(found["final"], 25 / 3, rtol=1e-6)
    np.testing.assert_allclose(found["log_final"], np.mean(np.log([1, 4, 10, 10])), rtol=1e-6)
    np.testing.assert_allclose(found["steps"], (2 + 4 + 4 + 1) / 4)
    np.testing.assert_allclose(found["reached"], 0.5)
    np.testing.assert_allclose(found["diverged"], 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["schedule", "success"])
def test_curricula_make_tasks_harder(by):
    hard = Rastrigins(height=10.0)
    curriculum = Curriculum(Rastrigins(height=0.0), steps=4, threshold=1e9, by=by)
    inner = Trajectory(hard, rate, horizon=2)
    task = meta_task(pes(inner, window=1, lanes=2), curriculum=curriculum, count=2)
    weights = task.init(KEY)
    memory = task.begin(weights, KEY)
    ask = jax.jit(task.loss_and_grad)
    for step in range(6):
        _, _, memory, metrics = ask(weights, memory, jnp.int32(step), jax.random.key(step))
        assert float(metrics["difficulty"]) == min(step / 4, 1)
        heights = set(np.asarray(memory[0].task.height).tolist())
        assert heights <= {10.0 * min(k / 4, 1) for k in range(step + 1)}
    never = Curriculum(Rastrigins(height=0.0), steps=4, threshold=-1e9, by="success")
    task = meta_task(pes(inner, window=1, lanes=2), curriculum=never, count=2)
    memory = task.loss_and_grad(weights, task.begin(weights, KEY), jnp.int32(9), KEY)[2]
    assert float(memory[1]) == 0
    with pytest.raises(ValueError, match="easy: expected a distribution like the hard one"):
        meta_task(pes(inner, window=1), curriculum=Curriculum(Rastrigins(size=3)))
    with pytest.raises(ValueError, match="by: expected one of schedule, success, got 'luck'"):
        Curriculum(hard, by="luck")


@pytest.mark.slow
def test_a_skipped_step_does_not_take_back_what_a_curriculum_has_reached():
    """The loss is NaN where the height passes 3: training goes on at the difficulty it had."""
    hard = Rastrigins(height=10.0)
    curriculum = Curriculum(Rastrigins(height=0.0), steps=10, threshold=1e9, by="success")
    inner = Trajectory(hard, rate, horizon=2)
    task = meta_task(pes(inner, window=1, lanes=2), curriculum=curriculum, count=2)
    weights = task.init(KEY)
    memory = task.begin(weights, KEY)
    for step in range(4):
        memory = jax.jit(task.loss_and_grad)(weights, memory, jnp.int32(step), KEY)[2]
    reached = memory[1]
    np.testing.assert_allclose(reached, 0.4, rtol=1e-6)
    again = task.renew(weights, memory, jnp.int32(4), jax.random.key(9))
    assert again[1] == reached
    np.testing.assert_allclose(again[0].task.height, 4.0, rtol=1e-6)

    class Skipping(MetaTraining):
        """Its step 3 is lost."""

        def loss_and_grad(self, weights, memory, step, key):
            loss, gradient, memory, metrics = super().loss_and_grad(weights, memory, step, key)
            return jnp.where(step == 3, jnp.nan, loss), gradient, memory, metrics

    fields = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    found = train(Skipping(**fields), config(steps=8))
    difficulties = [line["difficulty"] for line in found.history if "difficulty" in line]
    assert found.skipped == 1
    np.testing.assert_allclose(difficulties, [0, 0.1, 0.2, np.nan, 0.3, 0.4, 0.5, 0.6], atol=1e-6)


def test_a_training_goes_on_from_other_meta_params():
    inner = Trajectory(Quadratics(size=2), rate, horizon=2)
    first = Gradient(sgd, {"log_rate": jnp.float32(-1.5)})
    task = meta_task(FullUnroll(inner, batch=2), initial=first, count=2)
    assert task.init(KEY).numbers["log_rate"] == -1.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 0}, "count: expected a whole number of 1"),
        ({"steps": 0}, "steps: expected a whole number of 1"),
        ({"others": [Quadratics()]}, "others: expected distributions by name"),
    ],
)
def test_what_cannot_be_validated_is_named(options, words):
    inner = Trajectory(Quadratics(size=2), rate, horizon=2)
    with pytest.raises(ValueError, match=words):
        meta_task(FullUnroll(inner, batch=2), **options)


def test_what_is_no_estimator_is_named():
    with pytest.raises(ValueError, match="estimator: expected FullUnroll"):
        meta_task(Trajectory(Quadratics(size=2), rate, horizon=2))
    with pytest.raises(ValueError, match="steps: expected a number above 0"):
        Curriculum(Quadratics(), steps=0).check(Quadratics())
    inner = Trajectory(Quadratics(size=2), rate, horizon=2)
    with pytest.raises(ValueError, match="initial: expected meta-params like those"):
        meta_task(FullUnroll(inner, batch=2), initial={"log_rate": 1.0})


@pytest.mark.slow
def test_a_rule_is_learned_that_beats_every_rate_of_adam():
    tasks = Quadratics(size=5)
    build = RuleConfig("lstm", width=10)
    estimator = FullUnroll(Trajectory(tasks, build, horizon=15), batch=32, parts=1)
    found = meta_train(estimator, config(steps=400, learning_rate=0.01), count=64)
    test = Trajectory(Split(tasks, "test"), build, horizon=15)
    measure = jax.jit(lambda meta: jnp.mean(traces(test, meta, KEY, count=256, steps=15)[:, -1]))
    adams = [
        measure(Gradient(optax.adam, {"learning_rate": jnp.float32(r)}))
        for r in (0.03, 0.1, 0.3, 1.0)
    ]
    assert measure(found.weights) < 0.7 * min(adams)


CONFIG = """\
[training]
steps = 2
validate_every = 1

[task]
problems = "quadratics"
estimator = "pes"
horizon = 4
window = 2
batch = 4
held_out = 4
units = 1.0

[refiner]
architecture = "rule"
cell = "mlp"
width = 3
"""


@pytest.mark.slow
def test_a_rule_is_trained_by_the_command_and_loaded_into_a_loop_of_optax(tmp_path):
    text = CONFIG.replace('"pes"', '"full"').replace("units = 1.0", "parts = 1")
    (tmp_path / "config.toml").write_text(text.replace("steps = 2", "steps = 1"))
    arguments = ["--config", str(tmp_path / "config.toml"), "--output", str(tmp_path / "out")]
    assert cli.main(["train", "refiner", *arguments]) == 0
    model = load_model(tmp_path / "out" / "model")
    assert model.architecture == "rule"
    optimizer = model.value.optimizer()
    params = jnp.ones(3)
    steps, _ = optimizer.update(params, optimizer.init(params), params)
    assert np.all(np.isfinite(optax.apply_updates(params, steps)))


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"quadratics"', '"cubics"', "task.problems: expected one of quadratics, noisy_"),
        ('"pes"', '"bptt"', "task.estimator: expected one of full, truncated, pes, nres, es"),
        ("window = 2", "window = 3", "window: expected a divisor of the horizon of 4"),
        ("batch = 4", "batch = 0", "task.batch: expected 1 or more, got 0"),
        ("units = 1.0", "units = -1.0", "task.units: expected 0 or more, got -1.0"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(old, new, match):
    with pytest.raises(ValueError, match=match):
        plan_refiner(tomllib.loads(CONFIG.replace(old, new)))


@pytest.mark.parametrize("estimator", ["full", "truncated", "nres", "es"])
def test_every_estimator_can_be_configured(estimator):
    text = CONFIG.replace('"pes"', f'"{estimator}"').replace("batch = 4", "batch = 8")
    task = plan_refiner(tomllib.loads(text)).task
    kind = {"full": FullUnroll, "truncated": TruncatedUnroll}.get(estimator, Antithetic)
    assert isinstance(task.estimator, kind)


def test_the_table_of_a_distribution_builds_it_with_its_own_types():
    text = CONFIG.replace('"quadratics"', '"lenses"').replace("units = 1.0", "")
    text += "[task.distribution]\nsize = 40\nerror = [0.1, 0.3]\ncomponents = ['grain']\n"
    tasks = plan_refiner(tomllib.loads(text)).task.estimator.inner.tasks.tasks
    assert isinstance(tasks, LensTasks)
    assert (tasks.size, tasks.error) == (40, (0.1, 0.3))
    for old, new, match in (
        ("size = 40", "size = 20", "size: expected 33 pixels"),
        ("[0.1, 0.3]", "[0.3, 0.1]", "error: expected two positive numbers, least and largest"),
        ("[0.1, 0.3]", "0.1", "task.distribution.error: expected a list of 2 float"),
        ("size = 40", "sise = 40", "task.distribution.sise: no such key; did you mean size"),
    ):
        with pytest.raises(ValueError, match=match):
            plan_refiner(tomllib.loads(text.replace(old, new)))


def test_imitation_is_an_estimator_like_the_others():
    text = CONFIG.replace('"pes"', '"imitation"').replace("units = 1.0", "parts = 2")
    task = plan_refiner(tomllib.loads(text)).task
    assert isinstance(task, Imitation)
    assert (task.steps, task.batch, task.parts, task.held_out) == (4, 4, 2, 4)
    with pytest.raises(ValueError, match=r"task\.parts: expected a divisor of the batch of 4"):
        plan_refiner(tomllib.loads(text.replace("parts = 2", "parts = 3")))


def test_options_of_execution_that_do_not_apply_are_refused():
    estimator = FullUnroll(Trajectory(Quadratics(size=2), rate, horizon=2), batch=2)
    with pytest.raises(ValueError, match=r"execution: .*takes mesh alone, got lanes=4"):
        meta_train(estimator, config(steps=1), execution=Execution(lanes=4))
    with pytest.raises(ValueError, match="validate_by: expected one of plain, log"):
        meta_train(estimator, config(steps=1), validate_by="median")


@pytest.mark.slow
def test_a_refused_step_teaches_when_trained_and_is_refused_when_used():
    inner = Trajectory(Quadratics(size=2), UpdateConfig(2, width=4, depth=1), horizon=2)
    wild = jax.tree.map(lambda w: 30.0 * (w + 0.1), inner.init(jax.random.key(0)))
    key = jax.random.key(1)
    task = inner.sample(key)
    one = jax.tree.map(lambda x: x[None], (task, key))
    gradient = jax.jit(FullUnroll(inner, parts=1))(wild, *one)[1]
    assert max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(gradient)) > 0
    losses = traces(inner, wild, key, count=4, steps=3)
    assert np.all(np.diff(losses, axis=1) <= 0)
    raised = inner.advance(wild, task, inner.begin(wild, task, key), key)
    assert raised.state.loss > raised.first


def test_a_folder_of_a_training_with_another_horizon_is_refused(tmp_path):
    short = FullUnroll(NOISY.replace(horizon=2), batch=2, parts=1)
    meta_train(short, config(steps=1), tmp_path, count=4)
    longer = FullUnroll(NOISY.replace(horizon=3), batch=2, parts=1)
    with pytest.raises(ValueError, match="numbers or settings"):
        meta_train(longer, config(steps=1), tmp_path, count=4)
