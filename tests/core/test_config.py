"""Tables as dataclasses."""

import dataclasses
import tomllib

import pytest

from refinejax._config import check_tables, read_config, suggest


@dataclasses.dataclass(frozen=True)
class Settings:
    steps: int
    rate: float = 0.5
    name: str = "a"
    sizes: tuple[int, ...] = ()
    pair: tuple[float, float] | None = None
    on: bool = False

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps: expected 1 or more, got {self.steps}")
        if self.rate > 9:
            raise ValueError("the rate and the steps do not fit each other")


def test_a_table_of_toml_becomes_a_hashable_dataclass():
    table = tomllib.loads("steps = 3\nrate = 1\nsizes = [1, 2]\npair = [1, 2.5]\non = true")
    made = read_config(Settings, table, "training")
    assert made == Settings(3, 1.0, "a", (1, 2), (1.0, 2.5), True)
    assert isinstance(made.rate, float)
    hash(made)
    assert read_config(Settings, {"steps": 1, "pair": None}) == Settings(1)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (3, "t: expected a table, got 3"),
        ({"step": 1}, "t.step: no such key; did you mean steps?"),
        (
            {"steps": 1, "zzz": 1},
            "t.zzz: no such key; there are: steps, rate, name, sizes, pair, on",
        ),
        ({}, "t.steps: missing; the keys are steps, rate, name, sizes, pair, on"),
        ({"steps": 1.0}, "t.steps: expected an integer, got 1.0"),
        ({"steps": True}, "t.steps: expected an integer, got True"),
        ({"steps": 1, "rate": "1"}, "t.rate: expected a number, got '1'"),
        ({"steps": 1, "name": 1}, "t.name: expected a string, got 1"),
        ({"steps": 1, "on": 1}, "t.on: expected true or false, got 1"),
        ({"steps": 1, "sizes": 1}, "t.sizes: expected a list of int, got 1"),
        ({"steps": 1, "sizes": [1, "2"]}, "t.sizes: expected an integer, got '2'"),
        ({"steps": 1, "pair": [1]}, "t.pair: expected a list of 2 float, got [1]"),
        ({"steps": 0}, "t.steps: expected 1 or more, got 0"),
        ({"steps": 1, "rate": 10.0}, "the rate and the steps do not fit each other"),
    ],
)
def test_an_error_names_table_and_key_what_came_and_what_was_expected(table, message):
    with pytest.raises(ValueError) as caught:
        read_config(Settings, table, "t")
    assert str(caught.value) == message


def test_an_unknown_table_is_named_with_the_known_ones():
    check_tables({"task": {}}, ("training", "task"), "config")
    with pytest.raises(ValueError) as caught:
        check_tables({"task": {}, "trainin": {}}, ("training", "task"), "a.toml")
    assert str(caught.value) == "a.toml: unknown [trainin]; the tables are [training], [task]"


def test_the_nearest_name_is_suggested_and_without_one_all():
    assert suggest("learning_rat", ["steps", "learning_rate"]) == "did you mean learning_rate?"
    assert suggest("qqq", ["steps", "learning_rate"]) == "there are: steps, learning_rate"
