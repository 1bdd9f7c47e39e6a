"""The log as Markdown, written from the records alone."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from refinejax._files import write_text
from refinejax.experiments.judge import corrected_p, gain
from refinejax.experiments.log import Records
from refinejax.experiments.plans import Decision, Experiment
from refinejax.experiments.runs import Group, Run
from refinejax.experiments.text import interval, percent, places, signed

_ABOUT = "Written by `refinejax experiments log` from the records; do not edit."
_RULES = """\
Every experiment names, before it is judged, its baseline (a group of runs, by id), the metric that
decides, the least gain worth having (margin) and the metrics that must not get worse (guards). Runs
are paired by seed. KEEP: the t interval of the mean delta lies above 0, the mean reaches the margin
and all guards are held. REVERT: the interval lies below the margin, or a guard is broken.
INCONCLUSIVE: neither. Deltas are positive where the candidate is better. Where several looks are
planned, the interval of each is as wide as that takes."""


def write_markdown(records: Records, path: str | os.PathLike[str], title: str = "Log") -> None:
    """Write the log as a Markdown file; the file is complete or unchanged.

    Args:
        records: the content of the log.
        path: the file to write.
        title: of the page.

    Raises:
        OSError: if it cannot be written.
    """
    write_text(path, markdown(records, title))


def markdown(records: Records, title: str = "Log") -> str:
    """Return the log as Markdown: protocol, progress, kept and rejected, experiments, assumptions.

    The same records give the same text.

    Args:
        records: the content of the log.
        title: of the page.
    """
    parts = [f"# {title}", _ABOUT, "## Protocol", _RULES, _protocol(records)]
    parts += ["## Progress", progress_table(records), *_sorted_out(records)]
    parts += ["## Experiments", *(_experiment(records, e) for e in records.experiments)]
    if not records.experiments:
        parts.append("None yet.")
    parts += ["## Assumptions", _assumptions(records)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _protocol(records: Records) -> str:
    rows = [
        {
            "group": f"{group.name} (`{group.id}`)",
            "seeds": ", ".join(map(str, group.seeds)),
            "revision": f"`{group.first.revision}`",
            "data": f"`{group.first.data}`",
            "metrics": group.first.metric_version,
            "budget": _pairs(group.first.budget),
            "config": _pairs(group.first.config),
        }
        for group in records.groups.values()
    ]
    return table(rows) or "No runs yet."


def _pairs(content: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in content.items()) or "—"


def progress_table(records: Records) -> str:
    """Return a Markdown table with gain, interval, p and verdict of each experiment.

    Args:
        records: the content of the log.
    """
    return table(progress_rows(records)) or "No experiments yet."


def progress_rows(records: Records) -> list[dict[str, str]]:
    """Return the rows of the progress table; p (Holm) is over all judged experiments.

    Args:
        records: the content of the log.
    """
    together = corrected_p(records)
    rows = []
    for experiment in records.experiments:
        looks = records.looks_at(experiment.id)
        rows.append(
            {
                "experiment": experiment.id,
                "phase": experiment.phase,
                "change": experiment.change,
                "metric": experiment.metric,
                **(_numbers(looks[-1], together) if looks else _NOTHING),
            }
        )
    return rows


_NOTHING = dict.fromkeys(("pairs", "delta", "interval", "p", "p (Holm)"), "") | {
    "verdict": "not judged yet"
}


def _numbers(look: Decision, together: Mapping[str, float]) -> dict[str, str]:
    found = look.comparison
    mean, ends = gain(look)
    d = places(found["sd"] or abs(mean))
    return {
        "pairs": str(len(look.seeds)),
        "delta": signed(mean, d),
        "interval": interval(ends, d),
        "p": f"{found['p']:.2g}",
        "p (Holm)": f"{together[look.experiment]:.2g}",
        "verdict": look.verdict + (", promote" if look.promote else ""),
    }


def _sorted_out(records: Records) -> list[str]:
    parts = []
    for title, verdict in (("Kept", "KEEP"), ("Rejected", "REVERT")):
        found = [
            f"- {e.id}: {e.change}{_doubt(records, e) if verdict == 'KEEP' else ''}"
            for e in records.experiments
            if records.verdict(e.id) == verdict
        ]
        parts += [f"### {title}", "\n".join(found) or "None."]
    return parts


def _doubt(records: Records, kept: Experiment) -> str:
    """Return how far a KEEP was confirmed, and whether it survives Holm's correction."""
    trials = [e.id for e in records.experiments if e.confirms == kept.id]
    verdicts = [f"{name} {records.verdict(name) or 'not judged yet'}" for name in trials]
    state = f"confirmation: {', '.join(verdicts)}" if trials else "not confirmed on fresh seeds yet"
    p = corrected_p(records)[kept.id]
    many = f"; p {p:.2g} by Holm over all experiments here" if p > 0.05 else ""
    return f" ({state}{many})"


def _experiment(records: Records, e: Experiment) -> str:
    groups = records.groups
    arms = {"baseline": groups.get(e.baseline), "candidate": groups.get(e.candidate)}
    facts = [
        f"- Hypothesis: {e.hypothesis}",
        f"- Change: {e.change}",
        *(f"- {arm.capitalize()}: {_name(g, getattr(e, arm))}" for arm, g in arms.items()),
        f"- Decided by: {e.metric}, {e.direction} is better, margin {e.margin:g}, phase {e.phase}",
    ]
    if e.guards:
        held = ", ".join(f"{name} (tolerance {size:g})" for name, size in e.guards.items())
        facts.append(f"- Guards: {held}")
    if e.looks:
        facts.append(f"- Looks: at {', '.join(map(str, e.looks))} seeds")
    if e.touches is not None:
        facts.append(f"- Evaluation only; touches {', '.join(e.touches) or 'nothing'}")
    if e.confirms:
        facts.append(f"- Confirms: {e.confirms}, on fresh seeds")
    looks = [_look(look) for look in records.looks_at(e.id)] or ["Not judged yet."]
    return "\n\n".join([f"### {e.id}", "\n".join(facts), _values(e, arms), *looks])


def _name(group: Group | None, name: str) -> str:
    return f"`{name}`, not run yet" if group is None else f"{group.name} (`{name}`)"


def _values(e: Experiment, arms: Mapping[str, Group | None]) -> str:
    """Return the table of seeds × metrics, with both arms side by side."""
    runs = {arm: {r.seed: r for r in g.runs} if g is not None else {} for arm, g in arms.items()}
    metrics = dict.fromkeys([e.metric, *e.guards])
    rows = [
        {"seed": str(seed)}
        | {f"{name}, {arm}": _value(runs[arm].get(seed), name) for name in metrics for arm in arms}
        for seed in dict.fromkeys(seed for found in runs.values() for seed in found)
    ]
    return table(rows)


def _value(run: Run | None, metric: str) -> str:
    if run is None or run.status != "done":
        return "—" if run is None else run.status
    return f"{run.metrics[metric]:.6g}" if metric in run.metrics else "—"


def _look(look: Decision) -> str:
    found = look.comparison
    mean, ends = gain(look)
    d = places(found["sd"] or abs(mean))
    deltas = ", ".join(
        f"{pair}: {signed(delta, d)}"
        for pair, delta in zip(found["pairs"], found["deltas"], strict=True)
    )
    lines = [
        f"**{look.verdict}{' (promote)' if look.promote else ''}** at {len(look.seeds)} seeds: "
        f"mean delta {signed(mean, d)}, {percent(found['level'])} interval {interval(ends, d)}, p "
        f"{found['p']:.2g} (t), {found['flips']['two_sided']:.2g} (sign flips), {found['ups']} up.",
        f"Deltas by seed: {deltas}.",
        *(
            f"Guard {g['metric']}: {g['state']}, mean {g['mean']:+.3g}, may lose {g['tolerance']:g}"
            for g in found["guards"]
        ),
        *(f"Warning: {text}." for text in found["warnings"]),
        f"Action: {look.action}.",
    ]
    return "  \n".join(lines)


def _assumptions(records: Records) -> str:
    names = ("id", "choice", "why", "alternatives", "notice", "status")
    titles = {"notice": "how one would notice"}
    rows = [{titles.get(n, n): getattr(a, n) for n in names} for a in records.assumptions]
    return table(rows) or "None on record."


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows as a Markdown table; "" for none.

    Args:
        rows: dicts with the same keys, which are the column titles.
    """
    if not rows:
        return ""
    names = list(rows[0])
    lines = [names, [":--"] * len(names), *([row[name] for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
