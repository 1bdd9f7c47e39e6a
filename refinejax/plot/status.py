"""A figure of how samples ended."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from refinejax._core import Status
from refinejax.plot.style import add_legend, add_title, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Blue, amber and wine differ in lightness too: for every kind of color vision, and in print.
GROUPS = {"converged": "#0072B2", "not converged": "#E69F00", "failed": "#882255"}


@styled
def statuses(status: ArrayLike) -> "Figure":
    """Draw how many samples ended in each `Status`, most frequent first within a group.

    Args:
        status: codes of `Status`, shape (B,).

    Returns:
        The figure.

    Raises:
        ValueError: for a code that is no status.
    """
    counts = count_statuses(status)
    total = sum(counts.values())
    figure = new_figure(1.1 + 0.34 * len(counts))
    ax = figure.subplots()
    names = [code.name for code in counts]
    colors = [GROUPS[group_of(code)] for code in counts]
    bars = ax.barh(names, list(counts.values()), color=colors, height=0.68)
    labels = [f"{n:,}  ({100 * n / total:.3g} %)" for n in counts.values()]
    ax.bar_label(bars, labels, padding=4, fontsize=8.5)
    ax.set_ylim(len(bars) - 0.5, -0.5)
    ax.set_xlim(0, 1.16 * max(counts.values(), default=1))
    ax.locator_params(axis="x", integer=True)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("samples")
    add_title(figure, "How the samples ended")
    _group_legend(figure, {group_of(code) for code in counts})
    return figure


def count_statuses(status: ArrayLike) -> dict[Status, int]:
    """Return how many samples ended in each status: by group, and most frequent first.

    Args:
        status: codes of `Status`, shape (B,).

    Raises:
        ValueError: for a code that is no status.
    """
    codes, numbers = np.unique(np.asarray(status), return_counts=True)
    pairs = [(Status(int(code)), int(n)) for code, n in zip(codes, numbers, strict=True)]
    groups = list(GROUPS)
    return dict(sorted(pairs, key=lambda pair: (groups.index(group_of(pair[0])), -pair[1])))


def group_of(status: Status) -> str:
    """Return "converged", "not converged" or "failed".

    Args:
        status: of a sample.
    """
    if status < 0:
        return "failed"
    return "converged" if status.converged else "not converged"


def _group_legend(figure: "Figure", present: set[str]) -> None:
    from matplotlib.patches import Patch

    groups = {name: color for name, color in GROUPS.items() if name in present}
    patches = [Patch(color=color) for color in groups.values()]
    add_legend(figure, patches, list(groups))
