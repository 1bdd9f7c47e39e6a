"""Write what each status means, from `Status.explain`, for the page of troubleshooting."""

from pathlib import Path

from refinejax import Status


def table() -> str:
    """Return a definition list of all statuses."""
    entries = [
        f"(status-{status.name})=\n`{status.name}` ({int(status)})\n: {status.explain()}\n"
        for status in sorted(Status, key=lambda status: (status < 0, abs(status)))
    ]
    return "\n".join(entries)


def write(path: Path) -> None:
    """Write it, unless it is there already."""
    text = "<!-- made from Status.explain() by docs/_ext/statuses.py -->\n\n" + table()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
