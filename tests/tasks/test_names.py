"""Task distributions by name: those of the package, and those that applications register."""

import jax
import jax.numpy as jnp
import pytest

from refinejax import _applications
from refinejax._applications import Application
from refinejax.tasks import Quadratics, TaskDistribution, task_distribution, task_names
from refinejax.tasks.names import TASKS


@pytest.mark.parametrize("name", TASKS)
def test_every_name_is_a_distribution_whose_objective_is_a_scalar(name):
    tasks = task_distribution(name)
    assert isinstance(tasks, TaskDistribution)

    def loss(key):
        task = tasks.sample(key)
        return tasks.objective(task)(tasks.initial(task, key))

    assert jax.eval_shape(loss, jax.random.key(0)).shape == ()


def test_numbers_of_a_table_are_those_of_the_distribution():
    tasks = task_distribution("quadratics", {"scale": 2, "size": 3, "law": "uniform"})
    assert tasks == Quadratics(2.0, size=3, law="uniform")
    assert isinstance(tasks.scale, float)
    with pytest.raises(ValueError, match=r"task\.distribution\.size: expected an integer"):
        task_distribution("quadratics", {"size": 2.5})
    with pytest.raises(ValueError, match=r"task\.distribution\.law: expected one of normal"):
        task_distribution("quadratics", {"law": "cauchy"})
    with pytest.raises(ValueError, match=r"task\.problems: expected one of quadratics, .*lenses"):
        task_distribution("lense")


def shifted(offset: float = 1.0, size: int = 2):
    return Quadratics(offset, size=size)


def test_an_application_adds_a_distribution_and_the_kernel_is_not_edited(monkeypatch):
    mine = Application("mine", tasks={"shifted": f"{__name__}:shifted"})
    monkeypatch.setattr(_applications, "applications", lambda: (mine,))
    assert task_names() == (*TASKS, "shifted")
    tasks = task_distribution("shifted", {"offset": 3, "size": 4})
    assert jnp.shape(tasks.sample(jax.random.key(0)).matrix) == (4, 4)
    assert tasks.scale == 3.0


def test_a_name_of_two_applications_is_refused(monkeypatch):
    both = [Application(name, tasks={"same": "x:y"}) for name in ("one", "two")]
    monkeypatch.setattr(_applications, "applications", lambda: both)
    with pytest.raises(ValueError, match="tasks: 'same' is registered by both one and two"):
        task_names()
    taken = [Application("mine", tasks={"lassos": "x:y"})]
    monkeypatch.setattr(_applications, "applications", lambda: taken)
    with pytest.raises(ValueError, match="registers 'lassos', a name of"):
        task_distribution("lassos")
