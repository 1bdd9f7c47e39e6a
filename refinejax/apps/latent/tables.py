"""Tables of descriptors and labels in CSV files."""

import csv
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from refinejax._files import write_text
from refinejax.apps.latent.fitting import MultiTask, check_settings, plan

_MISSING = ("", "nan", "na", "none", "null", "?")


@dataclasses.dataclass(frozen=True)
class TableTaskConfig:
    """The table [task] of a model of a table.

    Attributes:
        table: path of a CSV file with a line of names. Entries that are empty, nan, na, none, null
            or ? are missing, which a descriptor must not be.
        numbers: columns to predict as numbers.
        classes: columns to predict as classes, by their text.
        inputs: columns that are descriptors; by default all others.
        batch: rows of a step.
        held_out: share of the rows that validate.
        reconstruction: weight of the decoder's loss.
        noise: added to descriptors in training, in their standard deviations.

    Raises:
        ValueError: names what does not fit.
    """

    table: str
    numbers: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    batch: int = 64
    held_out: float = 0.15
    reconstruction: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Check."""
        check_settings("task.", self.batch, self.held_out, self.reconstruction, self.noise)


def read_table(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Read a CSV file.

    Args:
        path: of the file; its first line holds names.

    Returns:
        Columns of text, by name.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if names are missing or come twice, or a line has another number of entries.
    """
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if line]
    if len(lines) < 2:
        raise ValueError(f"{path}: expected a line of names and lines of values")
    names = [name.strip() for name in lines[0]]
    if len(set(names)) != len(names) or "" in names:
        raise ValueError(f"{path}: expected a different name for each column, got {names}")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(names):
            raise ValueError(
                f"{path}: line {number} has {len(line)} entries, the first has {len(names)}"
            )
    return {name: [line[i].strip() for line in lines[1:]] for i, name in enumerate(names)}


def numbers_of(
    table: Mapping[str, Sequence[str]], columns: Sequence[str], where: str
) -> Float[np.ndarray, "N n"]:
    """Return columns as numbers, NaN where an entry is missing.

    Args:
        table: columns of text, by name, N entries each.
        columns: names of n columns.
        where: name of the table in errors.

    Raises:
        ValueError: for a column that is not there, or an entry that is no number; names both.
    """
    found = []
    for name in columns:
        if name not in table:
            raise ValueError(f"{where}: no column {name!r}; there are: {', '.join(table)}")
        found.append([_number(text, name, row, where) for row, text in enumerate(table[name], 2)])
    return np.array(found, float).T


def _number(text: str, name: str, row: int, where: str) -> float:
    if text.lower() in _MISSING:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"{where}: line {row}, column {name!r}: {text!r} is no number; a column of classes "
            "belongs to classes"
        ) from None


def plan_table(
    config: TableTaskConfig, network: Mapping[str, Any], seed: int
) -> tuple[MultiTask, dict[str, Any]]:
    """Return the training task of a table, and the configuration of the model.

    Args:
        config: the table [task].
        network: the table [network].
        seed: of the first weights and of the rows held out.

    Raises:
        ValueError: as `read_table` and `fit`.
    """
    table = read_table(config.table)
    asked = (*config.numbers, *config.classes)
    inputs = config.inputs or tuple(name for name in table if name not in asked)
    shared = sorted(set(inputs) & set(asked))
    if shared:
        raise ValueError(f"task.inputs: {shared[0]!r} is to be predicted; leave it out")
    descriptors = numbers_of(table, inputs, config.table)
    if not np.all(np.isfinite(descriptors)):
        row, column = np.argwhere(~np.isfinite(descriptors))[0]
        raise ValueError(
            f"{config.table}: line {row + 2}, column {inputs[column]!r} is "
            f"{descriptors[row, column]}; drop or impute such rows"
        )
    columns = numbers_of(table, config.numbers, config.table)
    labels: dict[str, Any] = {name: columns[:, i] for i, name in enumerate(config.numbers)}
    for name in config.classes:
        if name not in table:
            raise ValueError(f"{config.table}: no column {name!r}; there are: {', '.join(table)}")
        labels[name] = np.array(["" if t.lower() in _MISSING else t for t in table[name]])
    return plan(
        descriptors, labels, columns=inputs, network=network, weights=None,
        reconstruction=config.reconstruction, noise=config.noise, held_out=config.held_out,
        batch=config.batch, seed=seed,
    )  # fmt: skip


def write_table(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Write a CSV file, with as many digits as the numbers have.

    Args:
        path: of the file.
        columns: names, for its first line.
        rows: of values, one for each column.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([str(value) for value in row] for row in rows)
    write_text(path, text.getvalue())
