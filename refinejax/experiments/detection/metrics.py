"""The metrics: I-AUROC, P-AUROC, AU-PRO, sPRO, and their curves."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refinejax.experiments.detection.curves import (
    DetectionCurve,
    area,
    check_limit,
    curve,
    rank_area,
)
from refinejax.experiments.detection.pixels import (
    Connectivity,
    Region,
    pool_pixels,
    pool_regions,
    pool_saturated,
)


def image_auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve of images (I-AUROC).

    The probability that an image with a defect scores above one without, equal scores counted half.

    Args:
        labels: 1 or True where an image has a defect, shape (images,).
        scores: higher where a defect is likelier, shape (images,).

    Raises:
        ValueError: for other shapes or labels, NaN, or where one of both kinds is missing.
    """
    return rank_area(*_split(labels, scores))


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> DetectionCurve:
    """Return the ROC curve of images.

    Args:
        labels: as for `image_auroc`.
        scores: as for `image_auroc`.

    Raises:
        ValueError: as `image_auroc`.
    """
    good, defective = _split(labels, scores)
    return curve(good, defective, np.full(len(defective), 1.0 / len(defective)))


def _split(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    marked, values = np.asarray(labels), np.asarray(scores)
    if values.ndim != 1 or values.shape != marked.shape or values.dtype.kind not in "biuf":
        raise ValueError(
            f"scores: expected real numbers, one for each label, got shape {values.shape} of "
            f"{values.dtype} for labels of shape {marked.shape}"
        )
    if not np.isin(marked, (0, 1)).all():
        raise ValueError(f"labels: expected 0 and 1, got {np.unique(marked)[:5]}")
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError("scores: NaN; an unknown score has no rank")
    good, defective = values[marked == 0], values[marked == 1]
    if not len(good) or not len(defective):
        raise ValueError(
            f"labels: {len(defective)} with and {len(good)} without a defect; without both the "
            "metric is not defined"
        )
    return good, defective


def pixel_auroc(masks: Iterable[ArrayLike], maps: Iterable[ArrayLike]) -> float:
    """Return the area under the ROC curve of all pixels of all images (P-AUROC).

    Args:
        masks: not 0 where a pixel is defective: images of shape (height, width), of any size each.
        maps: scores, higher where a defect is likelier, of the same shapes.

    Raises:
        ValueError: for other shapes, NaN, or where there is no defective or no good pixel.
    """
    pool = pool_pixels(masks, maps)
    return rank_area(pool.good, pool.defective)


def au_pro(
    masks: Iterable[ArrayLike],
    maps: Iterable[ArrayLike],
    limit: float = 0.3,
    connectivity: Connectivity = 8,
) -> float:
    """Return the area under the curve of the per-region overlap (AU-PRO), divided by ``limit``.

    The overlap of a connected region of defects is the share of its pixels at or above a threshold;
    PRO is the mean over all regions. The false-positive rate is taken over all good pixels, in
    images with and without defects. Bergmann et al. (2021), "The MVTec anomaly detection dataset".

    Scores without information have PRO equal to the rate, and so limit/2: the floor at 0.3 is 0.15.

    Args:
        masks: not 0 where a pixel is defective: images of shape (height, width), of any size each.
        maps: scores, higher where a defect is likelier, of the same shapes.
        limit: false-positive rate up to which the area counts.
        connectivity: 8 lets pixels touch at corners, 4 at edges only.

    Raises:
        ValueError: for other shapes, NaN, a limit or connectivity out of range, or if there is no
            defective or no good pixel.
    """
    check_limit(limit)
    return area(*pool_regions(masks, maps, connectivity), limit)


def pro_curve(
    masks: Iterable[ArrayLike], maps: Iterable[ArrayLike], connectivity: Connectivity = 8
) -> DetectionCurve:
    """Return PRO over the false-positive rate.

    Args:
        masks: as for `au_pro`.
        maps: as for `au_pro`.
        connectivity: as for `au_pro`.

    Raises:
        ValueError: as `au_pro`.
    """
    return curve(*pool_regions(masks, maps, connectivity))


def au_spro(
    regions: Iterable[Sequence[Region]], maps: Iterable[ArrayLike], limit: float = 0.3
) -> float:
    """Return the area under the curve of the saturated overlap (sPRO), divided by ``limit``.

    As `au_pro`, but the overlap of a region is min(pixels hit / saturation, 1). Bergmann et al.
    (2022), "Beyond dents and scratches".

    Args:
        regions: of each image, none if it is good.
        maps: scores, higher where a defect is likelier: images of shape (height, width).
        limit: false-positive rate up to which the area counts.

    Raises:
        ValueError: for masks and maps of different shapes, NaN, a limit that is none, a region
            without pixels, a saturation that is not above 0, or where there is no region or no
            good pixel.
    """
    check_limit(limit)
    return area(*pool_saturated(regions, maps), limit)


def spro_curve(regions: Iterable[Sequence[Region]], maps: Iterable[ArrayLike]) -> DetectionCurve:
    """Return sPRO over the false-positive rate.

    Args:
        regions: as for `au_spro`.
        maps: as for `au_spro`.

    Raises:
        ValueError: as `au_spro`.
    """
    return curve(*pool_saturated(regions, maps))
