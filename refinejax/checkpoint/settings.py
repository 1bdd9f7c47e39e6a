"""How two tables of settings differ."""

import json
from collections.abc import Mapping
from typing import Any

from refinejax._files import canonical_json, hash_json


def check_same(there: Any, here: Mapping[str, Any], source: str) -> None:
    """Raise unless two tables of settings are equal.

    Args:
        there: the table that was saved.
        here: the present table.
        source: where the first was saved, for the error.

    Raises:
        ValueError: if they differ (names each setting with both values).
    """
    if hash_json(there, "config") == hash_json(here, "config"):
        return
    before, now = _flat(there or {}), _flat(json.loads(canonical_json(here, "config")))
    names = sorted(name for name in before | now if _shown(before, name) != _shown(now, name))
    differ = ", ".join(
        f"{name} = {_shown(before, name)} there and {_shown(now, name)} here" for name in names
    )
    raise ValueError(
        f"config: {source} was written with another config: {differ}; continue with the same "
        "config, or start in another folder"
    )


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "nothing"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{prefix}{name}"
        found |= _flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return found
