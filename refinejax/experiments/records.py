"""Records as JSON objects, and back."""

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any

from refinejax.experiments.plans import Assumption, Decision, Experiment
from refinejax.experiments.runs import Run

Record = Run | Experiment | Decision | Assumption
KINDS: dict[str, type[Record]] = {
    "run": Run,
    "experiment": Experiment,
    "decision": Decision,
    "assumption": Assumption,
}


def to_json(record: Record) -> dict[str, Any]:
    """Return a record as JSON can hold it, with its kind and the present time.

    Args:
        record: a run, experiment, decision or assumption.
    """
    kind = next(name for name, cls in KINDS.items() if isinstance(record, cls))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"kind": kind, "time": now, **dataclasses.asdict(record)}


def from_json(content: Any) -> Record:
    """Return the record of a JSON object.

    Args:
        content: as `to_json` returns it.

    Raises:
        ValueError: if it is not a record (names the missing, unknown or wrong fields).
    """
    if not isinstance(content, Mapping) or content.get("kind") not in KINDS:
        raise ValueError(
            f"a record: expected an object whose kind is one of {', '.join(KINDS)}, got {content!r}"
        )
    cls = KINDS[content["kind"]]
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content.items()
        if name not in ("kind", "time")
    }
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unset = dataclasses.MISSING
    required = {
        name
        for name, field in fields.items()
        if field.default is unset and field.default_factory is unset
    }
    missing, unknown = required - given.keys(), given.keys() - fields.keys()
    if missing or unknown:
        raise ValueError(
            f"a {content['kind']}: missing {', '.join(sorted(missing)) or 'nothing'}, unknown "
            f"{', '.join(sorted(unknown)) or 'nothing'}; it has {', '.join(fields)}"
        )
    try:
        return cls(**given)
    except (TypeError, AttributeError) as error:  # a list where a dict belongs, and the like
        raise ValueError(f"a {content['kind']}: {error}") from error
