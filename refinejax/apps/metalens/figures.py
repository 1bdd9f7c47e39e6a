"""Figures of phase maps."""

import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from refinejax.physics.phase import phase_rmse, wrapped_difference
from refinejax.plot.style import MISSING, add_title, load_matplotlib, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RANDOM_PHASE = math.pi / math.sqrt(3)  # RMS of a phase uniform in [−π, π) [rad]
MARKS = {"random phase: π/√3 ≈ 1.81 rad": RANDOM_PHASE}  # for `plot.before_after` and the like


@styled
def maps(observed: ArrayLike, predicted: ArrayLike, title: str = "") -> "Figure":
    """Draw the observed and the predicted phase and their residual, all on one scale.

    The scale is −π…π, its colors cyclic: −π and π are one phase, and have one color. Missing pixels
    are gray. The RMSE of the residual stands in the title.

    Args:
        observed: wrapped phase, (rows, columns), NaN where missing [rad].
        predicted: wrapped phase, of the same shape [rad].
        title: what stands before the RMSE; never read as mathematics.

    Returns:
        The figure.

    Raises:
        ValueError: if the shapes differ.
    """
    difference = residual(observed, predicted)
    rmse = float(phase_rmse(jnp.asarray(predicted), jnp.asarray(observed)))
    figure = new_figure(3.6)
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    images = (np.asarray(observed, float), np.asarray(predicted, float), difference)
    names = ("Observed", "Predicted", "Residual: predicted − observed")
    artists = [_draw_map(*each) for each in zip(axes, images, names, strict=True)]
    axes[0].set_ylabel("row [px]")
    gap = "missing" if np.all(np.isfinite(images[1])) else "not finite"
    _draw_scale(axes[-1], artists[-1], "" if np.all(np.isfinite(images)) else gap)
    number = f"{rmse:#.3g} rad" if math.isfinite(rmse) else "—"
    add_title(figure, *filter(None, [title]), f"residual RMSE {number}")
    return figure


def residual(observed: ArrayLike, predicted: ArrayLike) -> NDArray[np.floating]:
    """Return predicted − observed, wrapped to ±π [rad]; NaN where a pixel is missing.

    Args:
        observed: wrapped phase, any shape [rad].
        predicted: wrapped phase, of the same shape [rad].

    Returns:
        An array of that shape.

    Raises:
        ValueError: if the shapes differ.
    """
    shapes = np.shape(predicted), np.shape(observed)
    if shapes[0] != shapes[1]:
        raise ValueError(f"predicted: shape {shapes[0]}, but observed has {shapes[1]}")
    return np.asarray(wrapped_difference(jnp.asarray(predicted), jnp.asarray(observed)))


def _draw_map(ax: "Axes", image: NDArray[np.floating], name: str) -> Any:
    colors = load_matplotlib().colormaps["twilight_shifted"].with_extremes(bad=MISSING)
    # where pixels are many, colors are averaged and not phases: the mean across a wrap is no phase
    artist = ax.imshow(
        np.ma.masked_invalid(image),
        cmap=colors,
        vmin=-math.pi,
        vmax=math.pi,
        interpolation="antialiased",
        interpolation_stage="rgba",
    )
    ax.set_title(name)
    ax.set_xlabel("column [px]")
    ax.spines[:].set_visible(True)
    ax.locator_params(nbins=5, integer=True)
    return artist


def _draw_scale(ax: "Axes", artist: Any, gap: str) -> None:
    """Draw the scale of all maps at the right of ``ax``, as high as it, and what gray means."""
    figure, low = ax.get_figure(root=True), 0.13 if gap else 0.0
    assert figure is not None
    bar = figure.colorbar(artist, cax=ax.inset_axes((1.05, low, 0.05, 1 - low)))
    bar.set_ticks(list(np.linspace(-math.pi, math.pi, 5)))
    bar.ax.set_yticklabels(["−π", "−π/2", "0", "π/2", "π"])
    bar.set_label("wrapped phase [rad]")
    if gap:
        swatch = ax.inset_axes((1.05, 0, 0.05, 0.05), facecolor=MISSING, xticks=[])
        swatch.spines[:].set_visible(True)
        swatch.set_yticks([0.5], [gap])
        swatch.yaxis.tick_right()
        swatch.tick_params(length=0)
