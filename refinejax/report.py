"""A report of a refinement: one HTML page that needs no other file, and its figures as PNG files.

`write_report` makes both of a `ReportData`. Figures need matplotlib, the extra ``refinejax[plot]``.
"""

import base64
import html
import math
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

import refinejax
from refinejax import plot
from refinejax._core import Status
from refinejax._files import atomic_write, write_text

_DPI = 200
_ROLES = ("worst", "median", "best")
_OPTIONAL = ("convergence",)
_RMSE = "#.3g"  # trailing zeros too: the digits of a column are as many


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """What a report is made of; B samples of n params each.

    Attributes:
        observed: sample number → its wrapped phase (rows, columns), NaN where missing [rad].
        predicted: sample number → what the refined params predict, of the same shape [rad].
        names: of the params, n.
        units: of the params, n.
        initial: params at the start, (B, n).
        params: refined params, (B, n).
        std: their standard deviations, (B, n), NaN where unknown; None: all unknown.
        truth: the true params, (B, n), where they are known.
        rmse: residual RMSE of the refined params, (B,) [rad].
        initial_rmse: that of the initial params, (B,) [rad].
        status: codes of `Status`, (B,).
        steps: steps taken, (B,).
        method: what was used, and why.
        trace: residual RMSE at the start and after each step, (K, steps + 1), of any K samples
            [rad]; NaN after a sample's end.
        title: of the page.
        margins: of each discrete choice (name → (B,)), the log of the odds of what was chosen.
        start: what the initial params are called, such as "predicted".
        notes: what a reader must know, such as a parameter that is not determined.
    """

    observed: Callable[[int], ArrayLike]
    predicted: Callable[[int], ArrayLike]
    names: Sequence[str]
    units: Sequence[str]
    initial: ArrayLike
    params: ArrayLike
    rmse: ArrayLike
    initial_rmse: ArrayLike
    status: ArrayLike
    steps: ArrayLike
    std: ArrayLike | None = None
    truth: ArrayLike | None = None
    trace: ArrayLike | None = None
    margins: Mapping[str, ArrayLike] = field(default_factory=dict)
    method: str = ""
    title: str = "Refinement report"
    start: str = "initial"
    notes: Sequence[str] = ()


_CSS = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1d1f21; --quiet: #5c6166;
  --line: #d9dcdf; --soft: #f4f5f6; --converged: #0072b2; --not: #8a5a00; --failed: #882255; }
@media (prefers-color-scheme: dark) { :root { --page: #16181a; --ink: #e6e7e8; --quiet: #a3a8ad;
  --line: #3a3e42; --soft: #212427; --converged: #6cb8e8; --not: #f0b429; --failed: #e58fb6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 62.5rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
  "DejaVu Sans", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 0.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.75rem; padding-bottom: 0.3rem;
  border-bottom: 1px solid var(--line); }
p { margin: 0.5rem 0; overflow-wrap: anywhere; }
header p { color: var(--quiet); }
.tiles { display: grid; grid-template-columns: 1fr 1fr 2fr 1fr; gap: 0.75rem; margin: 1.5rem 0; }
.tiles div { display: flex; flex-direction: column-reverse; justify-content: flex-end;
  padding: 0.75rem 1rem; border-radius: 0.5rem; background: var(--soft); }
.tiles dt { color: var(--quiet); font-size: 0.85rem; line-height: 1.3; }
.tiles dd { margin: 0; font-size: 1.6rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
aside { padding: 0.75rem 1rem; border-left: 4px solid var(--not); background: var(--soft);
  border-radius: 0 0.5rem 0.5rem 0; }
aside h2 { margin: 0 0 0.25rem; padding: 0; border: 0; font-size: 1rem; }
aside ul { margin: 0; padding-left: 1.1rem; }
figure { margin: 1rem 0; padding: 0.5rem; background: #ffffff; border: 1px solid var(--line);
  border-radius: 0.5rem; }
figure img { display: block; width: 100%; height: auto; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.75rem; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; }
thead th { color: var(--quiet); }
th:first-child, .params td:nth-child(2), .params th:nth-child(2) { text-align: left; }
tbody th { font-weight: 500; }
.statuses td:last-child, .statuses th:last-child { text-align: left; white-space: normal; }
.statuses td:last-child { min-width: 16rem; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.9em; }
.badge { font: 600 0.8rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace; white-space: nowrap;
  padding: 0.1rem 0.45rem; border: 1px solid currentColor; border-radius: 0.3rem; }
.badge.converged { color: var(--converged); }
.badge.not { color: var(--not); }
.badge.failed { color: var(--failed); }
footer { margin-top: 3rem; color: var(--quiet); font-size: 0.85rem; }
@media (max-width: 45rem) { .tiles { grid-template-columns: 1fr 1fr; } }
@media print { :root { color-scheme: light; --page: #ffffff; --ink: #000000; --quiet: #444444;
  --line: #bbbbbb; --soft: #ffffff; --converged: #0072b2; --not: #8a5a00; --failed: #882255; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .tiles div { border: 1px solid var(--line); }
  h2, p { break-after: avoid; }
  figure, tr, aside, .tiles { break-inside: avoid; } }
"""

# The policy lets the page load nothing at all: what it shows, it holds.
_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<footer>Made by refinejax {version}. Residual RMSE: root mean square of the wrapped difference of
predicted and observed phase, over the pixels observed; a phase at random has π/√3 ≈ 1.81 rad.
Samples are numbered from 0, in the order in which they came. A margin is the log of the odds of
what was chosen against the best alternative; below 3 (20 : 1) the data do not decide.
</footer>
</body>
</html>
"""


def write_report(folder: str | os.PathLike[str], data: ReportData) -> Path:
    """Write ``index.html`` and its figures to a folder, which is made if it is not there.

    The maps shown are those of the worst, the median and the best sample by final RMSE; those that
    failed rank worst. All is drawn before anything is written, and each file appears whole.

    Args:
        folder: files of an earlier report in it are replaced.
        data: what to report.

    Returns:
        The path of ``index.html``.

    Raises:
        ValueError: for an empty batch, arrays that do not fit each other, an unknown status.
        ImportError: without matplotlib.
    """
    _check(data)
    folder = Path(folder)
    samples = choose_samples(data.rmse, data.status)
    figures = _draw(data, samples)
    page = _page(data, samples, figures)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        with atomic_write(folder / f"{name}.png") as file:
            file.write(figure)
    for name in set(_OPTIONAL) - set(figures):  # of an earlier report: not of this one
        (folder / f"{name}.png").unlink(missing_ok=True)
    index = folder / "index.html"
    write_text(index, page)
    return index


def choose_samples(rmse: ArrayLike, status: ArrayLike) -> dict[str, int]:
    """Return the numbers of the worst, the median and the best sample by final RMSE.

    Samples that failed, or have no finite RMSE, rank below all others.

    Args:
        rmse: final residual RMSE, (B,) [rad].
        status: codes of `Status`, (B,).
    """
    rmse, status = np.asarray(rmse, float), np.asarray(status)
    finite = np.isfinite(rmse)
    order = np.lexsort((np.where(finite, rmse, np.inf), ~finite | (status < 0)))
    places = (len(order) - 1, (len(order) - 1) // 2, 0)
    return {role: int(order[place]) for role, place in zip(_ROLES, places, strict=True)}


def _check(data: ReportData) -> None:
    if not np.size(data.rmse):
        raise ValueError("rmse: empty batch; there is nothing to report")
    samples, params = (np.size(data.rmse),), (np.size(data.rmse), len(data.names))
    shapes = dict.fromkeys(("rmse", "initial_rmse", "status", "steps"), samples)
    shapes |= dict.fromkeys(("initial", "params", "std", "truth"), params)
    shapes |= {"units": (len(data.names),)}
    values = {name: getattr(data, name) for name in shapes}
    shapes |= {f"margin {name}": samples for name in data.margins}
    values |= {f"margin {name}": margin for name, margin in data.margins.items()}
    for name, shape in shapes.items():
        value = values[name]
        if value is not None and np.shape(value) != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {np.shape(value)}")
    plot.count_statuses(data.status)  # raises for a code that is no status


def _draw(data: ReportData, samples: Mapping[str, int]) -> dict[str, bytes]:
    """Draw all figures, by name; each sample once, also where it is the worst and the best."""
    maps: dict[int, bytes] = {}
    for sample in samples.values():
        if sample not in maps:
            images = data.observed(sample), data.predicted(sample)
            maps[sample] = plot.png(plot.maps(*images, title=f"Sample {sample}"), _DPI)
    figures = {role: maps[sample] for role, sample in samples.items()}
    figures["before_after"] = plot.png(plot.before_after(data.initial_rmse, data.rmse), _DPI)
    if data.trace is not None and np.any(np.isfinite(data.trace)):
        figures["convergence"] = plot.png(plot.convergence(data.trace), _DPI)
    figures["statuses"] = plot.png(plot.statuses(data.status), _DPI)
    return figures


def _page(data: ReportData, samples: Mapping[str, int], figures: Mapping[str, bytes]) -> str:
    title = html.escape(data.title)
    sections = [
        f"<header><h1>{title}</h1>{_method(data)}</header>",
        _tiles(data),
        _notes(data.notes),
        _summary(data, figures),
        _endings(data, figures),
        *_samples(data, samples, figures),
    ]
    return _TEMPLATE.format(
        title=title,
        style=_CSS,
        version=refinejax.__version__,
        body="\n".join(filter(None, sections)),
    )


def _method(data: ReportData) -> str:
    return f"<p>Method: {html.escape(data.method)}</p>" if data.method else ""


def _tiles(data: ReportData) -> str:
    """The four numbers that are asked for first."""
    converged = sum(n for code, n in plot.count_statuses(data.status).items() if code.converged)
    share = 100 * converged / np.size(data.status)
    before, after = (_median(x) for x in (data.initial_rmse, data.rmse))
    tiles = {
        "samples": f"{np.size(data.rmse):,}",
        "converged": f"{_number(share, '.3g')} %",
        "median residual RMSE [rad], before → after": f"{before} → {after}",
        "median steps": _number(float(np.median(np.asarray(data.steps, float)))),
    }
    items = (f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles.items())
    return f'<dl class="tiles">{"".join(items)}</dl>'


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f"<aside><h2>Note</h2><ul>{items}</ul></aside>" if items else ""


def _summary(data: ReportData, figures: Mapping[str, bytes]) -> str:
    head = ("", "least", "10 %", "median", "90 %", "greatest", "not finite")
    rows = [
        _quantile_row("residual RMSE before [rad]", data.initial_rmse, _RMSE),
        _quantile_row("residual RMSE after [rad]", data.rmse, _RMSE),
        _quantile_row("steps", data.steps),
        *(
            _quantile_row(f"margin of the {html.escape(name)} [log odds]", margin, _RMSE)
            for name, margin in data.margins.items()
        ),
    ]
    parts = [_table(head, rows), _image(figures, "before_after", "Residual RMSE before and after")]
    if "convergence" in figures:
        parts.append(_image(figures, "convergence", "Residual RMSE against the step"))
    return _section("Before and after", parts)


def _quantile_row(name: str, values: ArrayLike, form: str = ".4g") -> tuple[str, ...]:
    values = np.ravel(np.asarray(values, float))
    finite = values[np.isfinite(values)]
    quantiles = np.quantile(finite, [0, 0.1, 0.5, 0.9, 1]) if finite.size else np.full(5, np.nan)
    return (name, *(_number(x, form) for x in quantiles), f"{values.size - finite.size:,}")


def _endings(data: ReportData, figures: Mapping[str, bytes]) -> str:
    counts = plot.count_statuses(data.status)
    total = sum(counts.values())
    rows = [
        (_badge(code), f"{number:,}", f"{_number(100 * number / total, '.3g')} %", _explain(code))
        for code, number in counts.items()
    ]
    table = _table(("status", "samples", "share", "what it means"), rows, "statuses")
    return _section("How the samples ended", [_image(figures, "statuses", "Statuses"), table])


def _explain(code: Status) -> str:
    """The explanation, with `code` marked as such."""
    pieces = html.escape(code.explain()).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))


def _badge(code: Status) -> str:
    group = plot.group_of(code)
    return f'<span class="badge {group.split()[0]}" title="{group}">{code.name}</span>'


def _samples(
    data: ReportData, samples: Mapping[str, int], figures: Mapping[str, bytes]
) -> list[str]:
    """A section for each sample; one that plays several roles has one section."""
    roles: dict[int, list[str]] = {}
    for role, sample in samples.items():
        roles.setdefault(sample, []).append(role)
    return [_sample(data, sample, names, figures) for sample, names in roles.items()]


def _sample(
    data: ReportData, sample: int, roles: Sequence[str], figures: Mapping[str, bytes]
) -> str:
    before, after, steps, status = (
        np.asarray(x)[sample] for x in (data.initial_rmse, data.rmse, data.steps, data.status)
    )
    line = (
        f"<p>{_badge(Status(int(status)))} {int(steps):,} {'step' if steps == 1 else 'steps'}, "
        f"residual RMSE {_number(before, _RMSE)} → {_number(after, _RMSE)} rad"
        f"{_margins(data, sample)}</p>"
    )
    name = " and ".join(filter(None, [", ".join(roles[:-1]), roles[-1]]))
    image = _image(figures, roles[0], f"Observed, predicted and residual phase of sample {sample}")
    title = f"{name.capitalize()} sample: number {sample}"
    return _section(title, [line, image, _params(data, sample)])


def _margins(data: ReportData, sample: int) -> str:
    found = ((name, np.asarray(margin, float)[sample]) for name, margin in data.margins.items())
    return "".join(f", margin of the {html.escape(name)} {_number(x, '.3g')}" for name, x in found)


def _params(data: ReportData, sample: int) -> str:
    """The table of a sample's params: where it began, where it ended, how sure, and the truth."""
    columns = [np.asarray(data.initial, float)[sample], np.asarray(data.params, float)[sample]]
    unknown = np.full(len(data.names), np.nan)
    std = unknown if data.std is None else np.asarray(data.std, float)[sample]
    head = ["parameter", "unit", data.start, "refined", "± std"]
    if data.truth is not None:
        truth = np.asarray(data.truth, float)[sample]
        columns += [truth, columns[1] - truth]
        head += ["truth", "refined − truth"]
    rows = []
    for k, (name, unit) in enumerate(zip(data.names, data.units, strict=True)):
        form = _form([column[k] for column in columns], std[k])
        values = [_number(column[k], form) for column in columns]
        values.insert(2, _std(std[k]))
        rows.append((html.escape(name), html.escape(unit), *values))
    return _table(head, rows, "params")


def _form(values: Sequence[float], std: float = math.nan) -> str:
    """The format of a row of numbers, so that their digits can be compared.

    Two digits of the standard deviation where it is known, and in any case five of the largest
    number: a refined value and the truth differ visibly also where the data determine neither.
    """
    sizes = [abs(value) for value in values if math.isfinite(value)]
    size = max(sizes, default=0.0)
    if not 1e-3 <= size < 1e6:
        return ".4e" if size else ".0f"
    last = min(std, 1e-3 * size) if std > 0 else 1e-3 * size
    return f".{min(max(1 - math.floor(math.log10(last)), 0), 9)}f"


def _std(value: float) -> str:
    """Two digits of a standard deviation."""
    if not 1e-6 <= value < 1e6:
        return _number(value, ".2g")
    return _number(value, f".{max(1 - math.floor(math.log10(value)), 0)}f")


def _number(value: float, form: str = ".4g") -> str:
    """Format a number; one that is not finite is a dash, and 0 has no sign."""
    if not math.isfinite(value):
        return "—"
    text = format(float(value), "z" + form)
    return text.replace("-", "−")


def _median(values: ArrayLike) -> str:
    values = np.asarray(values, float)
    finite = values[np.isfinite(values)]
    return _number(float(np.median(finite)), _RMSE) if finite.size else "—"


def _section(title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return f"<section><h2>{html.escape(title)}</h2>\n{body}\n</section>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of cells that are HTML already."""
    first = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="{kind}">\n<thead><tr>{first}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _image(figures: Mapping[str, bytes], name: str, text: str) -> str:
    """A figure within the page, at 100 pixels of the page per inch."""
    # width and height stand in the header of a PNG file, from byte 16 on
    width, height = (x * 100 // _DPI for x in struct.unpack(">II", figures[name][16:24]))
    source = base64.b64encode(figures[name]).decode("ascii")
    return (
        f'<figure><img width="{width}" height="{height}" alt="{html.escape(text)}" '
        f'src="data:image/png;base64,{source}"></figure>'
    )
