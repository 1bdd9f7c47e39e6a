"""Masks and score maps as good scores, defective scores and the weights of the defective ones."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Connectivity = Literal[4, 8]
_NEIGHBORS = {4: ndimage.generate_binary_structure(2, 1), 8: np.ones((3, 3), bool)}


class Region(NamedTuple):
    """A defect, and how many of its pixels must be found.

    Attributes:
        mask: True at its pixels, shape (height, width); regions of one image may overlap.
        saturation: number of pixels, above 0, from which on the defect counts as found; None, or
            more than the region has, stands for all of them.
    """

    mask: ArrayLike
    saturation: float | None = None


class Pool(NamedTuple):
    """The scores of all images together.

    Attributes:
        good: scores of good pixels.
        defective: scores of defective pixels.
        weights: of the defective pixels; they sum to 1.
    """

    good: NDArray[Any]
    defective: NDArray[Any]
    weights: NDArray[np.float64]


def pool_pixels(masks: Iterable[ArrayLike], maps: Iterable[ArrayLike]) -> Pool:
    """Return the pool in which every defective pixel has the same weight.

    Args:
        masks: not 0 where a pixel is defective, one image each.
        maps: scores, of the same shapes.
    """
    good, defective = [], []
    for mask, scores in _images(masks, maps):
        good.append(scores[~mask])
        defective.append(scores[mask])
    size = sum(map(len, defective))
    return _pool(good, defective, [np.full(size, 1.0 / max(size, 1))])


def pool_regions(
    masks: Iterable[ArrayLike], maps: Iterable[ArrayLike], connectivity: Connectivity
) -> Pool:
    """Return the pool in which every connected region has the same weight.

    Args:
        masks: not 0 where a pixel is defective, one image each.
        maps: scores, of the same shapes.
        connectivity: 8 lets pixels touch at corners, 4 at edges only.

    Raises:
        ValueError: for another connectivity.
    """
    if connectivity not in _NEIGHBORS:
        raise ValueError(f"connectivity: expected 4 or 8 neighbors, got {connectivity!r}")
    good, defective, weights = [], [], []
    for mask, scores in _images(masks, maps):
        good.append(scores[~mask])
        if mask.any():
            labels = _labels(mask, connectivity)[mask]
            defective.append(scores[mask])
            weights.append(1.0 / np.bincount(labels)[labels])
    return _pool(good, defective, weights)


def _labels(mask: NDArray[np.bool_], connectivity: Connectivity) -> NDArray[np.int32]:
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, _NEIGHBORS[connectivity], output=labels)
    return labels


def pool_saturated(regions: Iterable[Sequence[Region]], maps: Iterable[ArrayLike]) -> Pool:
    """Return the pool in which the s highest scores of a region weigh 1/s, and the rest 0.

    s is the saturation. At any threshold the weights of the hits then sum to min(hits/s, 1),
    because the hits of a region are its highest scores; equal scores are interchangeable.

    Args:
        regions: of each image; none for a good image.
        maps: scores of shape (height, width).
    """
    good, defective, weights = [], [], []
    for index, (found, values) in enumerate(_paired(regions, maps)):
        scores = _scores(values, index)
        anywhere = np.zeros(scores.shape, bool)
        for region in found:
            mask = _mask(region.mask, scores, index)
            anywhere |= mask
            inside = np.sort(scores[mask])[::-1]
            defective.append(inside)
            weights.append(_saturated(len(inside), region.saturation, index))
        good.append(scores[~anywhere])
    return _pool(good, defective, weights)


def _saturated(size: int, saturation: float | None, index: int) -> NDArray[np.float64]:
    if not size:
        raise ValueError(f"regions: one of image {index} has no pixel; leave it out")
    s = np.float64(size) if saturation is None else np.float64(min(saturation, size))
    if not s > 0:
        raise ValueError(
            f"saturation: expected a number of pixels above 0, got {saturation!r} in image {index}"
        )
    return np.clip(s - np.arange(size), 0.0, 1.0) / s


def _pool(good: list[Any], defective: list[Any], weights: list[Any]) -> Pool:
    if not sum(map(len, defective)):
        raise ValueError(
            "masks: no defective pixel in any image, so that the metric is not defined"
        )
    if not sum(map(len, good)):
        raise ValueError("masks: no good pixel in any image: the metric is not defined")
    joined = np.concatenate(weights)
    return Pool(np.concatenate(good), np.concatenate(defective), joined / joined.sum())


def _images(masks: Iterable[ArrayLike], maps: Iterable[ArrayLike]):
    for index, (mask, values) in enumerate(_paired(masks, maps)):
        scores = _scores(values, index)
        yield _mask(mask, scores, index), scores


def _paired(truth: Iterable[Any], maps: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
    ours, theirs = list(truth), list(maps)
    if len(ours) != len(theirs):
        raise ValueError(f"maps: expected one for each of {len(ours)} images, got {len(theirs)}")
    return zip(ours, theirs, strict=True)


def _scores(values: ArrayLike, index: int) -> NDArray[Any]:
    scores = np.asarray(values)
    if scores.ndim != 2 or scores.dtype.kind not in "biuf":
        raise ValueError(
            f"maps: expected real numbers of shape (height, width) for image {index}, got shape "
            f"{scores.shape} of {scores.dtype}"
        )
    if scores.dtype.kind == "f" and np.isnan(scores).any():
        raise ValueError(f"maps: NaN in image {index}; an unknown score has no rank")
    return scores


def _mask(mask: ArrayLike, scores: NDArray[Any], index: int) -> NDArray[np.bool_]:
    marked = np.asarray(mask)
    if marked.shape != scores.shape or marked.dtype.kind not in "biu":
        raise ValueError(
            f"masks: expected bools or integers of shape {scores.shape} for image {index}, like "
            f"its map, got shape {marked.shape} of {marked.dtype}"
        )
    return marked != 0
