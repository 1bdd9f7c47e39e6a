"""What a function reads counts: globals, closures, attributes, arrays, helpers, defaults."""

import functools
import inspect
import os
import pickle
import re
import subprocess
import sys
import textwrap
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx, struct
from scipy.interpolate import CubicSpline

import refinejax as rj
from refinejax._fingerprint import fingerprint
from refinejax._marks import Marked, Session, mark

T = np.linspace(0.0, 1.0, 20)
START = np.float32([1.0])
SIX = (6 * T).astype(np.float32)


def fitted(model, **options):
    return float(rj.refine(model, SIX, START, **options).params[0])


def notebook(text):
    """A module like a notebook: its cells are run by ``exec`` in one namespace."""
    cells = types.ModuleType("cells_of_a_notebook")
    vars(cells).update(jnp=jnp, jax=jax, np=np, functools=functools)
    exec(textwrap.dedent(text), vars(cells))
    return cells


CASES = {
    "a global": ("x = np.linspace(0, 1, 20)\ndef model(p): return p[0] * x", "x = 2 * x"),
    "an array in place": ("x = np.linspace(0, 1, 20)\ndef model(p): return p[0] * x", "x *= 2"),
    "a helper": (
        "x = np.linspace(0, 1, 20)\ndef helper(p): return p * x\ndef model(p): return helper(p[0])",
        "def helper(p): return 2 * p * x",
    ),
    "a global of a helper": (
        "x = np.linspace(0, 1, 20)\ndef helper(p): return p * x\ndef model(p): return helper(p[0])",
        "x = 2 * x",
    ),
    "a helper that JAX has traced": (
        "x = np.linspace(0, 1, 20)\n@jax.jit\ndef helper(p): return p * x\n"
        "def model(p): return helper(p[0])",
        "x = 2 * x",
    ),
    "the body of a scan": (
        "x, k = np.linspace(0, 1, 20), 1.0\ndef body(c, _): return c * k, None\n"
        "def model(p): return jax.lax.scan(body, p[0] * x, None, length=1)[0]",
        "k = 2.0",
    ),
    "a default": (
        "x = np.linspace(0, 1, 20)\ndef model(p, k=1.0): return k * p[0] * x",
        "model.__defaults__ = (2.0,)",
    ),
    "a keyword default": (
        "x = np.linspace(0, 1, 20)\ndef model(p, *, k=1.0): return k * p[0] * x",
        "model.__kwdefaults__['k'] = 2.0",
    ),
    "an attribute of self": (
        "class Lens:\n    k = 1.0\n    def model(self, p): return self.k * p[0] * self.x\n"
        "lens = Lens(); lens.x = np.linspace(0, 1, 20); model = lens.model",
        "lens.k = 2.0",
    ),
    "an attribute of a callable": (
        "class Lens:\n    def __call__(self, p): return self.k * p[0] * x\n"
        "x = np.linspace(0, 1, 20); model = Lens(); model.k = 1.0",
        "model.k = 2.0",
    ),
    "an attribute of the class": (
        "class Lens:\n    k = 1.0\n    def __call__(self, p): return self.k * p[0] * x\n"
        "x = np.linspace(0, 1, 20); model = Lens()",
        "Lens.k = 2.0",
    ),
    "an entry of a dict": (
        "x, config = np.linspace(0, 1, 20), {'k': 1.0}\n"
        "def model(p): return config['k'] * p[0] * x",
        "config['k'] = 2.0",
    ),
    "a closure": (
        "x = np.linspace(0, 1, 20)\n"
        "def make(k):\n    def set(v):\n        nonlocal k\n        k = v\n"
        "    return (lambda p: k * p[0] * x), set\nmodel, set = make(1.0)",
        "set(2.0)",
    ),
    "inside a partial": (
        "x, config = np.linspace(0, 1, 20), [1.0]\n"
        "model = functools.partial(lambda config, p: config[0] * p[0] * x, config)",
        "config[0] = 2.0",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_model_reads_is_changed_and_the_same_model_is_passed(name):
    before, change = CASES[name]
    cells = notebook(before)
    assert fitted(cells.model) == pytest.approx(6.0, rel=1e-3)
    exec(change, vars(cells))
    assert fitted(cells.model) == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize("door", [rj.run, rj.run_until])
def test_the_drivers_for_one_sample_see_a_change_too(door):
    cells = notebook("center = 1.0\ndef loss(p): return jnp.sum((p - center) ** 2)")
    steps = {"num_steps": 3} if door is rj.run else {"max_steps": 3}
    go = lambda: door(rj.Gradient(optax.lbfgs), cells.loss, jnp.zeros(2), **steps)  # noqa: E731
    np.testing.assert_allclose(go().params, 1.0, atol=1e-4)
    cells.center = 2.0
    np.testing.assert_allclose(go().params, 2.0, atol=1e-4)


def test_a_new_equal_lambda_does_not_trace_again_and_one_with_another_number_does():
    traces = []

    def fit(scale):
        return fitted(lambda p: (traces.append(1), scale * p[0] * T)[1])

    assert fit(1.0) == pytest.approx(6.0, rel=1e-3)
    first = len(traces)
    for _ in range(3):
        assert fit(1.0) == pytest.approx(6.0, rel=1e-3)
    # `refine` looks at shapes by calling the model; nothing is compiled.
    assert len(traces) - first <= 9
    counted = len(traces)
    for scale in (2.0, 3.0):
        assert fit(scale) == pytest.approx(6.0 / scale, rel=1e-3)
    assert len(traces) > counted


def test_equal_lambdas_share_a_program_of_run_batch():
    traces, start = [], np.ones((2, 1), np.float32)

    def fit():
        problem = rj.InverseProblem(lambda p: (traces.append(1), p[0] * T)[1], np.stack([SIX] * 2))
        return rj.run_batch(rj.LevenbergMarquardt(), problem, start, max_steps=20)

    fit()
    first = len(traces)
    for _ in range(3):
        np.testing.assert_allclose(fit().params, 6.0, rtol=1e-3)
    assert len(traces) == first


def test_a_model_that_remembers_is_not_traced_again():
    traces, grids = [], {}

    def model(p):
        traces.append(1)
        return p[0] * grids.setdefault(20, np.linspace(0, 1, 20))

    problem = rj.InverseProblem(model, SIX)
    rj.run_until(rj.LevenbergMarquardt(), problem, START, max_steps=20)
    first = len(traces)
    rj.run_until(rj.LevenbergMarquardt(), problem, START, max_steps=20)
    assert len(traces) == first


def test_side_effects_are_not_shared_between_lists():
    def fit(log):
        def model(p):
            jax.debug.callback(lambda: log.append(1))
            return p[0] * T

        problem = rj.InverseProblem(model, SIX)
        rj.run_until(rj.LevenbergMarquardt(), problem, START, max_steps=5)
        jax.effects_barrier()

    one, other = [], []
    fit(one)
    fit(other)
    assert one
    assert other


def unreadable(kind, folder):
    (folder / "file").touch()
    made = {
        "handle": (folder / "file").open,
        "lock": threading.Lock,
        "numbers": lambda: (i for i in range(3)),
    }
    return made[kind]()


@pytest.mark.parametrize("kind", ["handle", "lock", "numbers"])
def test_a_function_without_readable_content_works_and_refuses_a_checkpoint(kind, tmp_path):
    def make(k, held):
        def model(p):
            _ = held
            return k * p[0] * T

        return model

    first, second = unreadable(kind, tmp_path), unreadable(kind, tmp_path)
    assert fitted(make(1.0, first)) == pytest.approx(6.0, rel=1e-3)
    assert fitted(make(2.0, first)) == pytest.approx(3.0, rel=1e-3)
    assert fitted(make(2.0, second)) == pytest.approx(3.0, rel=1e-3)
    session = Session()
    assert session.mark(make(1.0, first)) != session.mark(make(1.0, second))
    with pytest.raises(ValueError, match=r"checkpoint: .*forward\.<closure>\.held"):
        fitted(make(1.0, first), checkpoint=tmp_path / "run")
    if kind == "handle":
        first.close()
        second.close()


@pytest.mark.parametrize("what", ["forward", "prior", "difference", "closure"])
def test_a_checkpoint_of_another_model_is_refused(what, tmp_path):
    make = lambda scale: lambda p: scale * p[0] * T  # noqa: E731
    arguments = {
        "forward": [{"forward": lambda p: p[0] * T}, {"forward": lambda p: 2 * p[0] * T}],
        "closure": [{"forward": make(1.0)}, {"forward": make(2.0)}],
        "prior": [{"prior": None}, {"prior": lambda p: p[0] ** 2}],
        "difference": [{"difference": "subtract"}, {"difference": lambda a, b: 2 * (a - b)}],
    }[what]
    common = {"forward": make(1.0), "observations": SIX, "initial": START, "checkpoint": tmp_path}
    first = rj.refine(**{**common, **arguments[0]})
    again = rj.refine(**{**common, **arguments[0]})
    np.testing.assert_array_equal(first.params, again.params)
    with pytest.raises(ValueError, match="another job"):
        rj.refine(**{**common, **arguments[1]})


SCRIPT = """
import functools, os, sys
import numpy as np
import refinejax as rj
from dataclasses import dataclass

t = np.linspace(0.0, 1.0, 20)
names = {"a", "b", "c", "d"}

@dataclass
class Lens:
    k: float
    def __call__(self, p): return self.k * p[0] * t * (1 if "a" in names else 2)

def helper(p): return Lens(1.0)(p)
calls = []
def model(p, *, scale=1.0):
    calls.append(1)
    return scale * helper(p)

r = rj.refine(functools.partial(model, scale=FACTOR), 6 * t, np.ones(1), checkpoint=sys.argv[1])
print(float(r.params[0]))
"""


def test_another_process_resumes_and_other_code_does_not(tmp_path):
    def go(name, factor):
        script = tmp_path / name
        script.write_text("\n" * len(name) + SCRIPT.replace("FACTOR", factor))
        command = [sys.executable, str(script), str(tmp_path / "run")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    first = go("one.py", "1.0")
    assert float(first.stdout) == pytest.approx(6.0, rel=1e-3), first.stderr
    assert float(go("another.py", "1.0").stdout) == pytest.approx(6.0, rel=1e-3)
    assert "another job" in go("one.py", "2.0").stderr


@struct.dataclass
class Shape:
    width: float
    kind: str = struct.field(pytree_node=False, default="round")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (0.0, -0.0),
        (True, 1),
        ("1", 1),
        ((1, 2), [1, 2]),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        (np.float32(1), np.float64(1)),
        (np.zeros(3), np.zeros((3, 1))),
        (np.zeros(3, ">f4"), np.zeros(3, "<f4")),
        (jnp.zeros(3), jnp.ones(3)),
        (Shape(1.0), Shape(1.0, "flat")),
        (Shape(1.0), Shape(2.0)),
        (np.array([1, "a"], object), np.array([2, "a"], object)),
        (np.ma.array([1.0, 2.0], mask=[0, 1]), np.ma.array([1.0, 2.0], mask=[0, 0])),
        (jnp.sin, jnp.cos),
        (len, max),
        (jax.jit(lambda p: p), jax.jit(lambda p: 2 * p)),
        (functools.partial(pow, 2), functools.partial(pow, 3)),
        (jax.tree_util.Partial(pow, 2), jax.tree_util.Partial(pow, 3)),
        (re.compile("a"), re.compile("b")),
        (linen.Dense(3), linen.Dense(4)),
        (nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Linear(2, 3, rngs=nnx.Rngs(1))),
        (jax.random.key(0), jax.random.key(1)),
        (np.random.default_rng(0), np.random.default_rng(1)),
        (optax.cosine_decay_schedule(1.0, 10), optax.cosine_decay_schedule(1.0, 11)),
        (CubicSpline([0, 1, 2], [0, 1, 4]), CubicSpline([0, 1, 2], [0, 1, 5])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_differ_have_other_fingerprints(one, other):
    assert fingerprint(one) != fingerprint(other)


def test_values_that_are_equal_have_one_fingerprint():
    cycle, same = [1], [1]
    cycle.append(cycle)
    same.append(same)
    assert fingerprint(cycle) == fingerprint(same)
    assert fingerprint({"x", "y", "z"}) == fingerprint({"z", "y", "x"})
    assert fingerprint(Shape(1.0)) == fingerprint(Shape(1.0))
    assert fingerprint(jnp.arange(3)) == fingerprint(jnp.arange(3))
    array = np.arange(6.0).reshape(2, 3)
    assert fingerprint(array.T) == fingerprint(np.ascontiguousarray(array.T))
    for make in (
        lambda: re.compile("a+"),
        lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0)),
        lambda: linen.Dense(3),
        lambda: jax.sharding.Mesh(np.array(jax.devices()), ("a",)),
        lambda: np.random.default_rng(0),
        lambda: optax.cosine_decay_schedule(1.0, 10),
        lambda: CubicSpline([0, 1, 2], [0, 1, 4]),
    ):
        assert fingerprint(make()) == fingerprint(make())
    custom = lambda: jax.custom_jvp(lambda x: x)  # noqa: E731
    assert fingerprint(custom()) == fingerprint(custom())


def test_a_marked_function_is_like_the_function():
    def model(p):
        """Scale."""
        return 2 * p

    model.difference = jnp.subtract
    marked = mark(jax.tree_util.Partial(model)).func
    assert isinstance(marked, Marked)
    assert marked(2.0) == 4.0
    assert repr(marked) == repr(model)
    assert marked.__name__ == "model"
    assert marked.difference is jnp.subtract
    assert list(inspect.signature(marked.function).parameters) == ["p"]
    assert pickle.loads(pickle.dumps(Session().mark(fitted))) is fitted


def test_functions_of_packages_are_left_alone():
    problem = rj.InverseProblem(jnp.sin, jnp.ones(2))
    assert mark(problem) is problem


def test_diagnostics_refuse_a_model_that_has_changed_since_the_fit():
    cells = notebook("x = np.linspace(0, 1, 20)\ndef model(p): return p[0] * x")
    result = rj.refine(cells.model, SIX, START)
    result.covariance()
    cells.x = 2 * cells.x
    with pytest.raises(ValueError, match=r"model reads .* has changed"):
        result.covariance()


def test_a_stream_refuses_a_model_that_changes_on_the_way():
    cells = notebook("x = np.linspace(0, 1, 20)\ndef model(p): return p[0] * x")

    def chunks():
        for _ in range(2):
            yield rj.InverseProblem(cells.model, SIX[None]), START[None]
            cells.x = 2 * cells.x

    with pytest.raises(ValueError, match="chunks: a chunk differs"):
        list(rj.run_stream(rj.LevenbergMarquardt(), chunks(), max_steps=5))


FORKS = """
import os, signal, sys, warnings
import numpy as np, jax, jax.numpy as jnp, refinejax as rj
warnings.simplefilter("ignore")
model = lambda p: p[0] * jnp.arange(3.0)
fit = lambda: rj.refine(model, np.arange(3.0), np.ones(1))
{before}
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that waits for threads it does not have would never end
    try:
        {inside}
        os._exit(0)
    except RuntimeError as error:
        os._exit(7 if "spawn" in str(error) else 8)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize(
    ("before", "inside", "code"),
    [
        ("fit()", "fit()", 7),
        ("jnp.ones(2)", "fit()", 7),
        ("rj.refine; jnp.ones(2)", "fit()", 7),
        ("", "fit()", 0),
    ],
    ids=["after a fit", "after an array", "after an array, loaded", "before any use"],
)
def test_a_forked_process_is_refused_by_name(before, inside, code):
    script = FORKS.format(before=before, inside=inside)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert int(done.stdout) == code
