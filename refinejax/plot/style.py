"""The style that all figures share, and their PNG files."""

import functools
import importlib
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_P = ParamSpec("_P")
_R = TypeVar("_R")

WIDTH = 9.6  # of every figure [inch], so that type is of one size where they stand together
GRAY, BLUE, INK, QUIET, MISSING = "#8C8C8C", "#0072B2", "#222222", "#666666", "#8F9A8F"
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.7,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "text.color": INK,
    "text.usetex": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": None,
    "mathtext.fontset": "dejavusans",
}


def styled(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate a function to draw in the style of this package; matplotlib's settings stay.

    Args:
        draw: a function that draws a figure.

    Returns:
        A function of the same arguments.
    """

    @functools.wraps(draw)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with load_matplotlib().rc_context(_STYLE):
            return draw(*args, **kwargs)

    return wrapper


def load_matplotlib() -> Any:
    """Import matplotlib.

    Raises:
        ImportError: if it is not there; says what to install.
    """
    try:
        return importlib.import_module("matplotlib")
    except ImportError as why:
        raise ImportError(
            "figures and reports need matplotlib, which is not installed: "
            "pip install 'refinejax[plot]'"
        ) from why


@styled
def png(figure: "Figure", dpi: int = 200) -> bytes:
    """Return the figure as a PNG file, the same bytes for the same figure.

    Args:
        figure: any figure.
        dpi: resolution [pixels per inch].
    """
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


def new_figure(height: float) -> "Figure":
    """Make an empty figure on a canvas of its own, `WIDTH` wide.

    Args:
        height: of the figure [inch].

    Returns:
        The figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def add_title(figure: "Figure", *parts: str) -> None:
    """Put a title at the left. It may come from a file, so a $ in it is a $.

    Args:
        figure: gets the title.
        parts: of the title, joined by dots.
    """
    text = "   ·   ".join(parts)
    figure.suptitle(text, x=0.005, ha="left", size=11.5, parse_math=False)


def add_legend(figure: "Figure", handles: Any, labels: list[str]) -> None:
    """Put a legend at the right of the title, where it hides nothing.

    Args:
        figure: gets the legend.
        handles: artists of matplotlib.
        labels: one for each.
    """
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))


def count(number: int, noun: str) -> str:
    """Return "1 sample", "2,000 samples".

    Args:
        number: how many.
        noun: in the singular.
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
