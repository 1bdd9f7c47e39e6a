"""Tables of settings: as JSON, their fingerprint, and how two of them differ."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical(content: Any, name: str) -> str:
    """Write ``content`` as JSON that is the same for equal content.

    Raises:
        ValueError: if JSON cannot hold it.
    """
    try:
        return json.dumps(content, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected what JSON can hold (text, finite numbers, lists, tables with names "
            f"as keys): {error}"
        ) from error


def fingerprint(content: Any, name: str) -> str:
    """Return the SHA-256 of `canonical`."""
    return hashlib.sha256(canonical(content, name).encode()).hexdigest()


def check_same(there: Any, here: Mapping[str, Any], source: str) -> None:
    """Insist that two tables are the same.

    Raises:
        ValueError: if not; names what differs.
    """
    if fingerprint(there, "config") == fingerprint(here, "config"):
        return
    before, now = _flat(there or {}), _flat(json.loads(canonical(here, "config")))
    names = sorted(name for name in before | now if _shown(before, name) != _shown(now, name))
    differ = ", ".join(
        f"{name} = {_shown(before, name)} there and {_shown(now, name)} here" for name in names
    )
    raise ValueError(
        f"config: {source} was written with another one: {differ}; go on with the same, or begin "
        "anew in another folder"
    )


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "nothing"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{prefix}{name}"
        found |= _flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return found
