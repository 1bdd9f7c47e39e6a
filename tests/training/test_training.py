"""The training loop: what it computes, when it ends, and that no interruption changes it."""

import functools
import json
import math
import os
import resource
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from children import PATIENCE, at_file_operation, call, expect, start
from clocks import Clock
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from refinejax import Status
from refinejax.checkpoint import Checkpoints
from refinejax.learned.schedules import learning_rate
from refinejax.training import TrainingConfig, run, steps, train
from refinejax.training.log import TrainingLog
from refinejax.training.state import Numbers, Recipe

TRACED = []
INPUTS = np.random.default_rng(0).uniform(-1, 1, (7, 4, 3)).astype(np.float32)


class Fit(struct.PyTreeNode):
    """Weights to be brought to ``truth`` by regression on inputs that follow from the step."""

    truth: jax.Array = struct.field(default_factory=lambda: jnp.array([1.0, -2.0, 0.5]))
    given: jax.Array = struct.field(default_factory=lambda: INPUTS)
    noise: float = 0.0  # of the inputs, from the key
    bad: tuple = (0, 0)  # steps from … to before … have no finite loss
    blind_from: int = 2**30  # validations with a weight this long, or longer, are NaN
    unfair: float = 0.0  # what validations hold against each step from 0

    def init(self, key):
        TRACED.append("init")
        return {"w": jax.random.uniform(key, (3,)), "b": jnp.zeros(2, jnp.bfloat16)}

    def begin(self, weights, key):
        return {"age": 0, "key": key}

    def loss(self, weights, x):
        b = jnp.sum(weights["b"].astype(jnp.float32) ** 2)
        return jnp.mean((x @ (weights["w"] - self.truth)) ** 2) + b

    def inputs(self, step, key):
        return self.given[step % 7] + self.noise * jax.random.uniform(key, (4, 3))

    def loss_and_grad(self, weights, memory, step, key):
        TRACED.append("step")
        loss, grad = jax.value_and_grad(self.loss)(weights, self.inputs(step, key))
        is_bad = (self.bad[0] <= step) & (step < self.bad[1])
        grad = jax.tree.map(lambda g: jnp.where(is_bad, jnp.nan, g), grad)
        after = memory | {"age": memory["age"] + 1}
        return loss, grad, after, {"w0": weights["w"][0], "age": after["age"]}

    def validate(self, weights, key):
        TRACED.append("validate")
        far = jnp.sum((weights["w"] - self.truth) ** 2)
        loss = far + self.unfair * jnp.sum(jnp.abs(weights["w"]))
        length = jnp.sum(jnp.abs(weights["w"]))
        return {"loss": jnp.where(length >= self.blind_from, jnp.nan, loss), "w0": weights["w"][0]}


def configured(**settings):
    defaults = {
        "steps": 40,
        "learning_rate": 0.05,
        "warmup": 5,
        "validate_every": 8,
        "checkpoint_every": 15,
        "log_every": 4,
    }
    return TrainingConfig(**defaults | settings)


NOISY = Fit(noise=0.3)


@functools.cache
def whole():
    """A training that was not interrupted."""
    return train(NOISY, configured(keep=2))


def column(trained, name):
    return [line[name] for line in trained.history if name in line]


MEASURED = ("rate", "seconds", "memory")  # what differs from run to run


def lines(history):
    """What the log says but for the rate, which depends on the time; NaN made comparable."""
    return [
        {name: "NaN" if x != x else x for name, x in line.items() if name not in MEASURED}
        for line in history
    ]


def assert_same(a, b):
    for name in ("loss", "best_step", "step", "status", "skipped"):
        assert getattr(a, name) == getattr(b, name), name
    jax.tree.map(np.testing.assert_array_equal, a.weights, b.weights)
    assert lines(a.history) == lines(b.history)


# What it computes


def test_it_trains():
    trained = train(Fit(), configured(steps=300, schedule="cosine", learning_rate=0.1))
    assert trained.status is Status.MAX_STEPS
    assert trained.step == 300
    assert trained.loss < 1e-4
    np.testing.assert_allclose(trained.weights["w"], Fit().truth, atol=0.01)
    assert trained.weights["b"].dtype == jnp.bfloat16
    assert column(trained, "validation_loss")[0] > 0.1
    assert column(trained, "step")[:4] == [0, 4, 8, 8]
    assert "MAX_STEPS after step 300" in repr(trained)
    assert trained.explain() == "All steps were taken."


def reference(optimizer, count):
    """The first weight before each step, by a plain loop."""
    task = Fit()
    weights = train(task, configured(steps=1, warmup=0, learning_rate=1e-30)).weights
    state, seen = optimizer.init(weights), []

    @jax.jit
    def advance(weights, state, step):
        grad = jax.grad(task.loss)(weights, jnp.asarray(task.given)[step % 7])
        updates, state = optimizer.update(grad, state, weights)
        return optax.apply_updates(weights, updates), state

    for step in range(count):
        seen.append(float(weights["w"][0]))
        weights, state = advance(weights, state, step)
    return seen


NAMES = ["adam", "adamw", "lamb", "lion", "nadam", "radam", "rmsprop", "sgd"]
FAST = ("adamw",)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in NAMES]
)
def test_the_steps_are_those_of_optax(name):
    decay = {"weight_decay": 0.1} if name in ("adamw", "lamb", "lion") else {}
    falls = "linear" if name == "sgd" else "cosine"
    config = configured(
        steps=12,
        optimizer=name,
        schedule=falls,
        clip=2,
        warmup=4,
        log_every=1,
        learning_rate=0.1,
        **decay,
    )
    rise, linear = optax.linear_schedule(0.0, 0.1, 4), optax.linear_schedule(0.1, 0.0, 8)
    fall = linear if falls == "linear" else optax.cosine_decay_schedule(0.1, 8)
    schedule = optax.join_schedules([lambda i: rise(i + 1), fall], [4])
    optimizer = optax.chain(optax.clip_by_global_norm(2), getattr(optax, name)(schedule, **decay))
    trained = train(Fit(), config)
    assert max(column(trained, "grad_norm")) > 2 > min(column(trained, "grad_norm"))
    np.testing.assert_allclose(
        column(trained, "w0"), reference(optimizer, 12), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        column(trained, "learning_rate"), [schedule(i) for i in range(12)], rtol=1e-5
    )


@pytest.mark.parametrize("warmup", [0, 3])
def test_the_schedules_are_those_of_optax(warmup):
    at = range(warmup, 10)
    linear = optax.linear_schedule(2.0, 0.0, 10 - warmup)
    cosine = optax.cosine_decay_schedule(2.0, 10 - warmup)
    for name, theirs in {"linear": linear, "cosine": cosine, "constant": lambda _: 2.0}.items():
        ours = [learning_rate(name, 2.0, step, warmup, 10) for step in at]
        np.testing.assert_allclose(ours, [theirs(step - warmup) for step in at], rtol=1e-5)
        rising = [learning_rate(name, 2.0, step, warmup, 10) for step in range(warmup)]
        np.testing.assert_allclose(rising, [2.0 / 3, 4.0 / 3, 2.0][:warmup], rtol=1e-6)


@pytest.mark.slow
def test_without_a_clip_gradients_are_not_shortened():
    config = configured(steps=3, optimizer="sgd", clip=0, warmup=0, log_every=1, schedule="linear")
    trained = train(Fit(), config)
    assert column(trained, "grad_norm")[0] > 1
    plain = optax.sgd(optax.linear_schedule(0.05, 0.0, 3))
    np.testing.assert_allclose(column(trained, "w0"), reference(plain, 3), rtol=1e-5)


def test_the_average_is_what_is_validated_and_returned():
    """Steps 3 and 4 are skipped, and leave it as it is."""
    config = configured(steps=20, average=0.5, validate_every=1, log_every=1)
    trained = train(Fit(bad=(3, 5)), config)
    before, validated = column(trained, "w0"), column(trained, "validation_w0")
    average, taken, expected = before[0], 0, [before[0]]
    for step, after in enumerate(before[1:]):
        if step not in (3, 4):
            after = before[5] if step == 2 else after
            decay = min(0.5, (1 + taken) / (10 + taken))
            average, taken = decay * average + (1 - decay) * after, taken + 1
        expected.append(average)
    np.testing.assert_allclose(validated[:-1], expected, rtol=1e-5)
    assert trained.weights["w"][0] == np.float32(validated[trained.best_step])
    assert trained.weights["b"].dtype == jnp.bfloat16


def test_an_average_of_half_precision_weights_is_kept_in_full():
    """Near w, (1 − 0.99)·(w − average) is below half a unit in its last place in bfloat16."""
    config, task = configured(average=0.99), Fit()
    recipe, numbers = Recipe.of(config, task), Numbers.of(config)
    average = steps.start(task, numbers, jax.random.key(0), recipe=recipe).average
    assert average["b"].dtype == jnp.float32
    for _ in range(300):
        average = steps._mix(average, {"w": average["w"], "b": jnp.ones(2, jnp.bfloat16)}, 0.99)
    np.testing.assert_allclose(average["b"], 1 - 0.99**300, rtol=1e-3)


def test_the_log_holds_means_over_the_steps_since_the_last_line():
    fine = train(NOISY, configured(log_every=1, steps=11))
    coarse = train(NOISY, configured(log_every=4, steps=11))
    for name in ("loss", "grad_norm", "w0"):
        each = column(fine, name)
        means = [np.mean(each[0:4]), np.mean(each[4:8]), np.mean(each[8:11])]
        np.testing.assert_allclose(column(coarse, name), means, rtol=1e-5)
    assert [x["step"] for x in coarse.history if "loss" in x] == [4, 8, 11]
    for x in coarse.history:
        if "loss" in x:
            rate = next(y["learning_rate"] for y in fine.history if y["step"] == x["step"])
            np.testing.assert_allclose(x["learning_rate"], rate, rtol=1e-6)


def test_the_best_weights_by_validation_are_returned():
    """Validation likes the small: the best is on the way."""
    trained = train(Fit(unfair=1.2), configured(validate_every=1, steps=60, learning_rate=0.2))
    losses = column(trained, "validation_loss")
    assert trained.best_step == int(np.argmin(losses)) not in (0, 60)
    assert np.float32(trained.loss) == np.float32(min(losses))
    again = Fit(unfair=1.2).validate(trained.weights, jax.random.key(0))["loss"]
    np.testing.assert_allclose(again, trained.loss, rtol=1e-6)


@pytest.mark.slow
def test_float64_is_kept():
    with jax.enable_x64(True):
        task = Fit(truth=jnp.array([1.0, -2.0, 0.5]), noise=0.1)
        trained = train(task, configured(steps=2, warmup=0, average=0.9))
        assert trained.weights["w"].dtype == jnp.float64


# Nothing is compiled twice


def test_calls_and_other_numbers_do_not_trace_again():
    train(Fit(), configured())
    TRACED.clear()
    programs = steps.advance._cache_size()
    other = Fit(truth=jnp.zeros(3), noise=0.5, bad=(1, 3), unfair=0.2)
    trained = train(
        other,
        configured(
            steps=70,
            learning_rate=0.3,
            weight_decay=0.01,
            clip=0.0,
            warmup=0,
            seed=7,
            validate_every=3,
            patience=90,
            log_every=2,
            give_up=5,
        ),
    )
    assert trained.step == 70
    assert TRACED == []
    assert steps.advance._cache_size() == programs


class Given(Fit):
    """Begins with weights that belong to the task, and remembers them."""

    def init(self, key):
        TRACED.append("init")
        return self.truth

    def begin(self, weights, key):
        return weights

    def loss_and_grad(self, weights, memory, step, key):
        TRACED.append("step")
        return jnp.sum(weights**2), weights, memory, {}

    def validate(self, weights, key):
        TRACED.append("validate")
        return {"loss": jnp.sum(weights**2)}


def test_all_is_traced_once_and_weights_of_the_task_itself_are_left_alone():
    TRACED.clear()
    task = Given()
    for count in (2, 3):
        train(task, configured(steps=count, warmup=0))
    assert TRACED == ["init", "step", "validate"]
    np.testing.assert_array_equal(task.truth, [1.0, -2.0, 0.5])


def test_tasks_of_two_classes_are_never_taken_for_each_other():
    """Though to JAX their structures may be equal: then a program of the other may be found."""
    one, other = (Recipe.of(configured(), changed()) for _ in range(2))
    assert one != other
    assert Recipe.of(configured(), Fit()) == Recipe.of(configured(seed=3), Fit(noise=1.0))


# When it ends


def test_steps_without_a_finite_gradient_are_skipped_and_counted():
    settings = {"warmup": 0, "log_every": 1}
    trained = train(Fit(bad=(3, 5)), configured(steps=9, **settings))
    assert trained.skipped == 2
    assert column(trained, "skipped") == [0, 0, 0, 1, 2, 2, 2, 2, 2]
    w, age, loss = (column(trained, name) for name in ("w0", "age", "loss"))
    assert all(math.isnan(x) for x in (w[3], w[4], loss[3], loss[4]))
    np.testing.assert_allclose(age, [1, 2, 3, math.nan, math.nan, 1, 2, 3, 4])  # memory anew
    untouched = column(train(Fit(), configured(steps=9, **settings)), "w0")
    assert w[:3] == untouched[:3]
    assert w[5] == untouched[3]


@pytest.mark.slow
def test_the_optimizer_does_not_see_what_was_skipped():
    settings = {"schedule": "constant", "warmup": 0, "log_every": 1, "steps": 14}
    seen = column(train(Fit(bad=(0, 7)), configured(**settings)), "w0")[7:]
    # The inputs repeat after seven steps.
    np.testing.assert_array_equal(seen, column(train(Fit(), configured(**settings)), "w0")[:7])


def test_it_is_given_up_when_nothing_is_finite_any_more():
    trained = train(Fit(bad=(12, 2**30)), configured(give_up=9))
    assert trained.status is Status.NONFINITE
    assert trained.step == 12 + 9
    assert trained.skipped == 9
    assert trained.loss < column(trained, "validation_loss")[0]
    assert "was not finite" in trained.explain()
    assert all(np.isfinite(x).all() for x in map(np.asarray, jax.tree.leaves(trained.weights)))


def test_without_a_finite_validation_it_says_so():
    trained = train(Fit(blind_from=0), configured(patience=3))
    assert trained.status is Status.NONFINITE
    assert trained.step == 16
    assert trained.loss == math.inf
    assert trained.best_step == 0
    assert trained.weights["w"][0] == np.float32(column(trained, "validation_w0")[0])
    assert all(math.isnan(x) for x in column(trained, "validation_loss"))


def test_it_ends_early_when_validation_gets_no_better():
    trained = train(Fit(unfair=50.0), configured(steps=90, patience=4, validate_every=2))
    losses = column(trained, "validation_loss")
    assert trained.status is Status.STALLED
    assert trained.step == trained.best_step + 8 < 90
    assert min(losses[-4:]) >= trained.loss
    assert trained.history[-1]["step"] == trained.step
    assert "patience" in trained.explain()


def test_validation_at_the_ends_alone():
    trained = train(Fit(), configured(validate_every=0, checkpoint_every=0))
    assert [x["step"] for x in trained.history if "validation_loss" in x] == [0, 40]


# Interrupted and resumed


class CrashError(Exception):
    """Not one that anything catches."""


def crash_after(monkeypatch, calls, how):
    """Do ``how`` after some calls of the device."""
    done, go_on = [], run.TrainingRun.go_on

    def counted(self):
        go_on(self)
        done.append(1)
        if len(done) == calls:
            how()

    monkeypatch.setattr(run.TrainingRun, "go_on", counted)


def crash():
    raise CrashError


@pytest.mark.parametrize("calls", [2, 7])
def test_a_training_that_crashed_goes_on_bit_for_bit(tmp_path, monkeypatch, calls):
    with monkeypatch.context() as crashing:
        crash_after(crashing, calls, crash)
        with pytest.raises(CrashError):
            train(NOISY, configured(keep=2), tmp_path)
    assert_same(train(NOISY, configured(keep=1), tmp_path), whole())
    written = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in written] == column(whole(), "step")


def test_ctrl_c_ends_it_saved_and_it_goes_on_bit_for_bit(tmp_path, monkeypatch):
    with monkeypatch.context() as interrupting:
        crash_after(interrupting, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        cut = train(NOISY, configured(keep=2), tmp_path)
    assert cut.status is Status.STOPPED
    assert "same arguments" in cut.explain()
    assert Checkpoints(tmp_path / "checkpoints").steps[-1] == cut.step < 40
    assert cut.step not in (8, 15, 16)  # where nothing else is due
    assert_same(train(NOISY, configured(keep=2), tmp_path), whole())


def test_a_training_with_all_there_is_to_remember_goes_on_bit_for_bit(tmp_path, monkeypatch):
    task = NOISY.replace(bad=(13, 15), unfair=1.0)
    config = configured(
        optimizer="sgd",
        learning_rate=0.2,
        schedule="linear",
        average=0.7,
        patience=2,
        validate_every=3,
        log_every=7,
        checkpoint_every=8,
    )
    expected = train(task, config)
    assert expected.status is Status.STALLED
    assert expected.step > 20
    assert expected.skipped == 2
    with monkeypatch.context() as crashing:
        crash_after(crashing, 12, crash)
        with pytest.raises(CrashError):
            train(task, config, tmp_path)
    assert Checkpoints(tmp_path / "checkpoints").steps[-1] >= 16
    assert_same(train(task, config, tmp_path), expected)


def train_and_pause(folder, calls):
    """In a child: train; after some calls of the device say so and wait."""

    def pause():
        print("paused", flush=True)
        sys.stdin.readline()

    with pytest.MonkeyPatch.context() as pausing:
        crash_after(pausing, int(calls), pause)
        train(NOISY, configured(keep=2), folder)


def train_and_be_killed(folder, operation):
    """In a child: train, but for a kill at a file operation."""
    at_file_operation(int(operation), folder, lambda: os.kill(os.getpid(), signal.SIGKILL))
    train(NOISY, configured(keep=2), folder)


def test_a_training_that_was_killed_goes_on_bit_for_bit(tmp_path):
    process = start(train_and_pause, tmp_path, 6)
    expect(process, "paused")
    process.kill()
    process.communicate()
    assert 0 < Checkpoints(tmp_path / "checkpoints").steps[-1] < 40
    assert_same(train(NOISY, configured(keep=2), tmp_path), whole())


@pytest.mark.slow
def test_a_training_killed_again_and_again_while_it_writes_ends_the_same(tmp_path):
    for operation in (5, 20, 33, 41, 48, 60, 47, 55):
        process = start(train_and_be_killed, tmp_path, operation)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGKILL, errors
    assert_same(train(NOISY, configured(keep=2), tmp_path), whole())


def test_a_training_that_has_ended_is_not_begun_again(tmp_path, monkeypatch):
    first = train(NOISY, configured(keep=2), tmp_path)
    assert_same(first, whole())
    monkeypatch.setattr(run, "advance", crash)
    assert_same(train(NOISY, configured(keep=2), tmp_path), whole())


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    train(NOISY, configured(steps=6), tmp_path)
    for other in (Fit(noise=0.1), NOISY.replace(unfair=0.5)):
        with pytest.raises(ValueError, match="numbers or settings, up to step 6"):
            train(other, configured(steps=6), tmp_path)
    message = (
        r"config: .*learning_rate = 0.05 there and 0.1 here, task.name = nothing there and 'x'"
    )
    with pytest.raises(ValueError, match=message):
        train(
            NOISY,
            configured(steps=6, learning_rate=0.1),
            tmp_path,
            description={"name": "x"},
        )


def test_a_task_with_other_numbers_is_refused_and_the_first_still_goes_on(tmp_path, monkeypatch):
    with monkeypatch.context() as crashing:
        crash_after(crashing, 1, crash)
        with pytest.raises(CrashError):
            train(NOISY, configured(keep=2), tmp_path)
    with pytest.raises(ValueError, match=r"checkpoint: .*with other numbers.*another folder"):
        train(Fit(noise=0.1), configured(keep=2), tmp_path)
    assert_same(train(NOISY, configured(keep=2), tmp_path), whole())


def test_a_time_limit_ends_it_saved_and_it_goes_on_bit_for_bit(tmp_path):
    cut = train(NOISY, configured(keep=2), tmp_path, time_limit=0.0)
    assert cut.status is Status.TIME_LIMIT
    assert cut.step == 0
    assert "same arguments" in cut.explain()
    assert_same(train(NOISY, configured(keep=2), tmp_path), whole())
    with pytest.raises(ValueError, match="time_limit: expected seconds"):
        train(NOISY, configured(), time_limit=-1)


def test_a_disk_that_is_full_is_an_error_and_with_room_it_goes_on(tmp_path, monkeypatch):
    """A limit on the length of files has the system refuse to write, as a full disk does."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match=r"folder: cannot write .*taken"):
        train(NOISY, configured(keep=2), tmp_path / "taken")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (150, before[1]))
    with monkeypatch.context() as full:
        crash_after(full, 4, limit)
        try:
            with pytest.raises(OSError, match=r"folder: cannot write .*File too large.*make room"):
                train(NOISY, configured(keep=2), tmp_path / "run")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_same(train(NOISY, configured(keep=2), tmp_path / "run"), whole())


def end_on_four(folder):
    """In a child with four devices: go on, and print the loss and the step at the end."""
    assert len(jax.devices()) == 4
    mesh = Mesh(np.array(jax.devices()), ("all",))
    rows = NamedSharding(mesh, PartitionSpec(None, "all"))
    task = NOISY.replace(given=jax.device_put(INPUTS, rows))
    trained = train(task, configured(keep=2), folder)
    print(trained.loss, trained.step)


@pytest.mark.slow
def test_a_training_begun_on_one_device_ends_on_four(tmp_path, monkeypatch):
    """With the inputs spread over them; sums are then in another order."""
    with monkeypatch.context() as crashing:
        crash_after(crashing, 6, crash)
        with pytest.raises(CrashError):
            train(NOISY, configured(keep=2), tmp_path)
    loss, step = call(end_on_four, tmp_path, devices=4).split()
    assert int(step) == 40
    np.testing.assert_allclose(float(loss), whole().loss, rtol=1e-4)
    again = train(NOISY, configured(keep=2), tmp_path)  # on one
    assert again.loss == float(loss)
    np.testing.assert_allclose(again.weights["w"], whole().weights["w"], rtol=1e-4)


# The log


def test_the_log_is_json_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "time", Clock(tick=0.01))
    train(NOISY.replace(bad=(0, 4)), configured(steps=10), tmp_path)
    found = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in found] == [0, 4, 8, 8, 10, 10]
    names = ["step", "loss", "grad_norm", "learning_rate", "skipped", "age", "w0", "rate"]
    assert [*found[1]] == names
    assert [*found[0]] == ["step", "validation_loss", "validation_w0", "seconds", "memory"]
    seconds = [x["seconds"] for x in found if "seconds" in x]
    assert 0 < seconds[0] < seconds[-1]
    assert all(x["memory"] > 1 for x in found if "memory" in x)
    assert found[1]["loss"] is None
    assert found[1]["skipped"] == 4
    assert all(x["rate"] > 0 for x in found if "rate" in x)


def test_a_log_is_cut_back_and_loses_a_line_that_was_not_written_to_its_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = TrainingLog(path)
    for step in range(4):
        log.add({"step": step, "loss": np.float32(0.1) if step else np.float32(np.nan)})
    log.flush()
    assert path.read_text().splitlines()[1] == '{"step": 1, "loss": 0.1}'
    path.write_text(path.read_text() + '{"step": 4, "lo')
    assert [x["step"] for x in TrainingLog(path, upto=9).lines] == [0, 1, 2, 3]
    again = TrainingLog(path, upto=1)
    assert lines(again.lines) == lines(log.lines[:2])
    assert path.read_text() == '{"step": 0, "loss": null}\n{"step": 1, "loss": 0.1}\n'


def test_progress_is_drawn(capfd):
    train(NOISY, configured(), progress=True)
    err = capfd.readouterr().err
    assert "40/40" in err
    assert "best" in err
    train(NOISY, configured())
    assert capfd.readouterr().err == ""


# What a task may not do


def changed(**methods):
    return type("Changed", (Fit,), methods)()


def bad_grad(self, weights, memory, step, key):
    return 0.0, {"w": jnp.zeros(4), "b": weights["b"]}, memory, {}


def bad_memory(self, weights, memory, step, key):
    return 0.0, weights, {**memory, "age": memory["age"] + 0.5}, {}


def more_memory(self, weights, memory, step, key):
    return 0.0, weights, {**memory, "more": 1}, {}


def bad_loss(self, weights, memory, step, key):
    return jnp.zeros(3), weights, memory, {}


def bad_name(self, weights, memory, step, key):
    return 0.0, weights, memory, {"loss": 0.0}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (bad_grad, r"grad\['w'\]: expected float32\[3\] .* got float32\[4\]"),
        (bad_memory, r"memory\['age'\]: expected int32\[\] .* got float32\[\]"),
        (more_memory, r"memory: expected a pytree of the same structure"),
        (bad_loss, r"task: loss_and_grad returned 'loss' of shape \(3,\)"),
        (bad_name, r"task: loss_and_grad returned 'loss', a name of the log's own"),
    ],
)
def test_what_a_step_returns_is_checked(method, message):
    with pytest.raises(ValueError, match=message):
        train(changed(loss_and_grad=method), configured())


def test_what_else_a_task_returns_is_checked():
    with pytest.raises(ValueError, match=r"task: validate returned error; it must return a 'loss'"):
        train(changed(validate=lambda self, w, key: {"error": 0.0}), configured())
    with pytest.raises(ValueError, match=r"weights\['w'\]: expected floating-point numbers"):
        train(changed(init=lambda self, key: {"w": jnp.zeros(3, int)}), configured())
    with pytest.raises(ValueError, match=r"task: expected a TrainingTask, int has no init, begin"):
        train(3, configured())
    with pytest.raises(ValueError, match=r"task.truth: expected arrays and numbers .*got str"):
        train(Fit(truth="x"), configured())


# Settings


def test_settings_come_from_a_table_and_go_into_one():
    config = TrainingConfig.from_dict({"steps": 20, "learning_rate": 1, "optimizer": "sgd"})
    assert (config.steps, config.learning_rate, config.optimizer) == (20, 1.0, "sgd")
    assert TrainingConfig.from_dict(config.to_dict()) == config
    assert TrainingConfig.from_dict({}) == TrainingConfig()
    assert TrainingConfig(steps=np.int64(5)).to_dict()["steps"] == 5


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"steps": 0}, "steps: expected a whole number from 1 to 2,147,483,647, got 0"),
        ({"steps": 1e4}, "steps: expected a whole number .*got 10000.0"),
        ({"steps": True}, "steps: expected a whole number .*got True"),
        ({"steps": "10"}, "steps: expected a whole number .*got '10'"),
        ({"warmup": -1}, "warmup: expected a whole number from 0"),
        ({"warmup": 1000}, "warmup: expected fewer steps than the 1000 of the training, got 1000"),
        ({"seed": 2**31}, "seed: expected a whole number"),
        ({"learning_rate": -1.0}, "learning_rate: expected a finite number of 0 or more, got -1.0"),
        ({"learning_rate": 0}, "learning_rate: expected a number above 0"),
        ({"learning_rate": "fast"}, "learning_rate: expected a finite number .*'fast'"),
        ({"learning_rate": False}, "learning_rate: expected a finite number .*False"),
        ({"clip": math.nan}, "clip: expected a finite number .*nan"),
        ({"clip": math.inf}, "clip: expected a finite number .*inf"),
        ({"average": 1}, "average: expected a decay from 0 .* to below 1, got 1.0"),
        ({"optimizer": "adm"}, "optimizer: 'adm' is unknown; did you mean adam?"),
        ({"optimizer": 3}, "optimizer: 3 is unknown; there are: adam, adamw"),
        ({"schedule": "cosin"}, "schedule: 'cosin' is unknown; did you mean cosine?"),
        ({"optimizer": "sgd", "weight_decay": 0.1}, "weight_decay: sgd has none; use adamw, lamb"),
        ({"keep": 0}, "keep: expected a whole number from 1"),
        ({"give_up": 0}, "give_up: expected a whole number from 1"),
    ],
)
def test_settings_that_make_no_sense_are_named(table, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**table)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"learning_rat": 1}, "training.learning_rat: no such key; did you mean learning_rate?"),
        ({"qqqq": 1}, "training.qqqq: no such key; there are: steps, optimizer, learning_rate"),
        ({"steps": 0}, "training.steps: expected a whole number from 1 to 2,147,483,647, got 0"),
        ({"steps": 1e4}, "training.steps: expected an integer, got 10000.0"),
        ({"learning_rate": "fast"}, "training.learning_rate: expected a number, got 'fast'"),
        ({"optimizer": 3}, "training.optimizer: expected a string, got 3"),
        ({"average": 1}, "training.average: expected a decay from 0 .* to below 1, got 1.0"),
    ],
)
def test_a_table_that_makes_no_sense_is_named_with_its_key(table, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig.from_dict(table)
