"""Writing a report: the page and its figures."""

import html
import os
import string
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import refinejax
from refinejax import plot
from refinejax._files import atomic_write, write_text
from refinejax.batch import BatchResult
from refinejax.report.overview import endings, summary, tiles
from refinejax.report.parts import Section, section_html
from refinejax.report.presentation import Presentation, ReportData, check
from refinejax.report.samples import ROLES, covariance_sections, sample_sections

_OPTIONAL = (*ROLES, "convergence", "covariance")
_PLAIN = Presentation()


def write_report(
    folder: str | os.PathLike[str],
    result: BatchResult,
    presentation: Presentation = _PLAIN,
    dpi: int = 200,
) -> Path:
    """Write ``index.html`` and its figures to a folder, which is made if it is not there.

    Shown are the worst, the median and the best sample by the measure of the fit; those that failed
    rank worst. All is drawn before anything is written, and each file appears whole. The page needs
    no other file and loads none.

    Args:
        folder: files of an earlier report in it are replaced.
        result: of any problem, with a sample axis.
        presentation: names and units, pictures, sections; see `Presentation`.
        dpi: resolution of the figures [pixels per inch].

    Returns:
        The path of ``index.html``.

    Raises:
        ValueError: for an empty batch, arrays that do not fit each other, an unknown status, two
            figures of one name.
        ImportError: without matplotlib.
    """
    data = check(result, presentation)
    sections = [
        summary(data),
        endings(data),
        *presentation.sections,
        *covariance_sections(data),
        *sample_sections(data),
    ]
    images = _draw(sections, dpi)
    page = _page(data, [section_html(section, images, dpi) for section in sections])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        with atomic_write(folder / f"{name}.png") as file:
            file.write(image)
    for name in set(_OPTIONAL) - set(images):  # of an earlier report: not of this one
        (folder / f"{name}.png").unlink(missing_ok=True)
    index = folder / "index.html"
    write_text(index, page)
    return index


def _draw(sections: Sequence[Section], dpi: int) -> dict[str, bytes]:
    """Return the PNG files of all pictures, by name."""
    images: dict[str, bytes] = {}
    for picture in (picture for section in sections for picture in section.pictures):
        image = plot.png(picture.figure, dpi)
        for name in picture.names:
            if name in images:
                raise ValueError(f"sections: two figures are named {name!r}; rename one")
            images[name] = image
    return images


def _page(data: ReportData, sections: Sequence[str]) -> str:
    title, method = html.escape(data.presentation.title), html.escape(data.result.method)
    method = f"<p>Method: {method}</p>" if method else ""
    head = f"<header><h1>{title}</h1>{method}</header>"
    parts = [head, tiles(data), _notes(data.result.notes), *sections]
    return _fill(
        {
            "title": title,
            "style": _resource("page.css"),
            "version": refinejax.__version__,
            "footer": html.escape(data.measure.note),
            "body": "\n".join(filter(None, parts)),
        }
    )


def _fill(fields: Mapping[str, str]) -> str:
    return string.Template(_resource("page.html")).substitute(fields)


def _resource(name: str) -> str:
    return (resources.files("refinejax.report") / name).read_text(encoding="utf-8")


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f"<aside><h2>Note</h2><ul>{items}</ul></aside>" if items else ""
