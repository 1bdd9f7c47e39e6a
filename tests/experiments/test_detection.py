"""Detection metrics against their definitions, in exact fractions."""

import itertools
import sys
from fractions import Fraction

import numpy as np
import pytest

from refinejax.experiments import detection as det
from refinejax.experiments.detection import Region

EXACT = {"rel": 0, "abs": 1e-12}


def neighbors(mask, connectivity=8):
    """Connected regions by flooding, as sets of pixels."""
    left, found = set(zip(*np.nonzero(mask), strict=True)), []
    while left:
        region, front = set(), [left.pop()]
        while front:
            i, j = front.pop()
            region.add((i, j))
            for di, dj in itertools.product((-1, 0, 1), repeat=2):
                near = (i + di, j + dj)
                if near in left and (connectivity == 8 or 0 in (di, dj)):
                    left.remove(near)
                    front.append(near)
        found.append(region)
    return found


def defined(regions, good, maps, limit):
    """Area by the definition: every score a threshold, trapezoids, all in fractions.

    ``regions`` are pairs of a list of (image, pixel) and a saturation; ``good`` is such a list.
    """
    limit, corners = Fraction(limit), [(Fraction(0), Fraction(0))]
    for threshold in sorted({x for scores in maps for x in scores.ravel().tolist()}, reverse=True):
        marked = [scores >= threshold for scores in maps]
        rate = Fraction(sum(bool(marked[k][p]) for k, p in good), len(good))
        overlaps = [
            min(Fraction(sum(bool(marked[k][p]) for k, p in region)) / Fraction(s), Fraction(1))
            for region, s in regions
        ]
        corners.append((rate, sum(overlaps) / len(regions)))
    total = Fraction(0)
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        if x0 < limit:
            end = min(x1, limit)
            height = y1 if x1 <= limit else y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            total += (end - x0) * (y0 + height) / 2
    return float(total / limit)


def cases(seed, levels=6):
    """Images of two sizes with few different scores, one of them without a defect."""
    rng = np.random.default_rng(seed)
    shapes = [(7, 9), (7, 9), (5, 6)]
    masks = [rng.random(shape) < 0.3 for shape in shapes[:2]] + [np.zeros(shapes[2], bool)]
    maps = [
        rng.integers(0, levels, shape) + mask for shape, mask in zip(shapes, masks, strict=True)
    ]
    return masks, [scores.astype([np.float32, np.float64][seed % 2]) for scores in maps]


def pixels(masks, value):
    return [(k, p) for k, m in enumerate(masks) for p in zip(*np.nonzero(m == value), strict=True)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("connectivity", [4, 8])
def test_au_pro_is_its_definition(seed, connectivity):
    masks, maps = cases(seed, levels=[3, 6, 1000][seed % 3])
    regions = [
        ([(k, p) for p in region], len(region))
        for k, mask in enumerate(masks)
        for region in neighbors(mask, connectivity)
    ]
    for limit in (0.3, 0.05, 1.0):
        truth = defined(regions, pixels(masks, 0), maps, limit)
        assert det.au_pro(masks, maps, limit, connectivity) == pytest.approx(truth, **EXACT)
        found = det.pro_curve(masks, maps, connectivity).area(limit)
        assert found == pytest.approx(truth, **EXACT)


@pytest.mark.parametrize("seed", range(6))
def test_spro_is_its_definition(seed):
    rng = np.random.default_rng(seed)
    _, maps = cases(seed)
    given, listed, anywhere = [], [], [np.zeros(scores.shape, bool) for scores in maps]
    for k, scores in enumerate(maps[:2]):
        given.append([])
        for saturation in (3, 7.5, None, 1000):  # regions overlap
            mask = rng.random(scores.shape) < 0.2
            size = int(mask.sum())
            given[k].append(Region(mask, saturation))
            spots = [(k, p) for p in zip(*np.nonzero(mask), strict=True)]
            listed.append((spots, min(size, saturation or size)))
            anywhere[k] |= mask
    for limit in (0.3, 0.05, 1.0):
        truth = defined(listed, pixels(anywhere, 0), maps, limit)
        assert det.au_spro([*given, []], maps, limit) == pytest.approx(truth, **EXACT)
        found = det.spro_curve([*given, []], maps).area(limit)
        assert found == pytest.approx(truth, **EXACT)


@pytest.mark.parametrize("seed", range(6))
def test_auroc_is_the_share_of_pairs(seed):
    masks, maps = cases(seed)
    labels = np.concatenate([mask.ravel() for mask in masks])
    scores = np.concatenate([values.ravel() for values in maps])
    difference = np.subtract.outer(scores[labels], scores[~labels])
    truth = np.mean((difference > 0) + 0.5 * (difference == 0))
    assert det.pixel_auroc(masks, maps) == pytest.approx(truth, **EXACT)
    assert det.image_auroc(labels, scores) == pytest.approx(truth, **EXACT)
    assert det.roc_curve(labels.astype(int), scores).area() == pytest.approx(truth, **EXACT)


def all_of(masks, maps):
    images = [float(scores.max()) for scores in maps]
    regions = [[Region(mask, 4)] if mask.any() else [] for mask in masks]
    return (
        det.image_auroc([mask.any() for mask in masks], images),
        det.pixel_auroc(masks, maps),
        det.au_pro(masks, maps),
        det.au_spro(regions, maps),
    )


def test_the_order_of_images_and_a_monotone_map_change_nothing():
    masks, maps = cases(0)
    truth = all_of(masks, maps)
    assert all_of(masks, [np.exp(scores.astype(float)) - 50 for scores in maps]) == truth
    assert all_of(masks, [scores.astype(int) for scores in maps]) == truth
    assert all_of(masks[::-1], maps[::-1]) == pytest.approx(truth, **EXACT)
    flipped = [mask[::-1] for mask in masks], [scores[::-1] for scores in maps]
    assert all_of(*flipped) == pytest.approx(truth, **EXACT)


def test_saturation_at_the_area_is_pro():
    masks, maps = cases(2)
    whole = [[Region(_only(mask, spots)) for spots in neighbors(mask)] for mask in masks]
    assert det.au_spro(whole, maps) == pytest.approx(det.au_pro(masks, maps), **EXACT)
    one = [[Region(region.mask, 1) for region in found] for found in whole]
    assert det.au_spro(one, maps) > det.au_spro(whole, maps)


def _only(mask, spots):
    region = np.zeros(mask.shape, bool)
    region[tuple(np.array(sorted(spots)).T)] = True
    return region


def test_a_hot_pixel_changes_little():
    rng = np.random.default_rng(0)
    masks = [np.zeros((64, 64), bool) for _ in range(4)]
    for mask in masks[:3]:
        mask[10:20, 10:22] = mask[40:43, 50:60] = True
    maps = [rng.normal(size=(64, 64)) + 1.5 * mask for mask in masks]
    clean = det.au_pro(masks, maps)
    assert 0.5 < clean < 0.9
    maps[3][0, 0] = 1e6
    assert det.au_pro(masks, maps) == pytest.approx(clean, abs=2e-3)
    grid = np.linspace(min(m.min() for m in maps), max(m.max() for m in maps), 200)[::-1]
    good = np.concatenate([scores[~mask] for mask, scores in zip(masks, maps, strict=True)])
    bad = np.concatenate([scores[mask] for mask, scores in zip(masks, maps, strict=True)])
    rates, hits = ([np.mean(x >= t) for t in grid] for x in (good, bad))
    x = np.linspace(0, 0.3, 1001)  # what linear thresholds make of it: the floor
    assert np.trapezoid(np.interp(x, rates, hits), x) / 0.3 == pytest.approx(0.15, abs=1e-3)


def test_floor_and_ceiling():
    masks, maps = cases(1)
    flat = [np.zeros(scores.shape) for scores in maps]
    assert det.au_pro(masks, flat) == pytest.approx(0.15, **EXACT)
    assert det.pixel_auroc(masks, flat) == 0.5
    assert det.au_pro(masks, [mask.astype(float) for mask in masks]) == pytest.approx(1, **EXACT)
    assert det.au_pro(masks, [-mask.astype(float) for mask in masks]) == 0.0
    extreme = [np.where(mask, np.inf, -np.inf) for mask in masks]
    assert det.au_pro(masks, extreme) == pytest.approx(1, **EXACT)


def test_a_curve_says_what_its_thresholds_mark():
    masks, maps = cases(3)
    found = det.pro_curve(masks, maps)
    good = np.concatenate([scores[~mask] for mask, scores in zip(masks, maps, strict=True)])
    for rate, threshold in zip(found.rates, found.thresholds, strict=True):
        assert rate == np.mean(good >= threshold)
    assert (found.rates[0], found.hits[0]) == (0, 0)
    assert (found.rates[-1], found.hits[-1]) == (1, 1)
    for values in (found.rates, found.hits, -found.thresholds):
        assert np.all(values[1:] >= values[:-1])


GOOD, BAD, FLAT = np.zeros((2, 2), bool), np.ones((2, 2), bool), np.zeros((2, 2))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: det.au_pro([GOOD], [FLAT]), "no defective pixel in any image"),
        (lambda: det.au_pro([BAD], [FLAT]), "no good pixel in any image"),
        (lambda: det.pixel_auroc([GOOD], [FLAT]), "no defective pixel"),
        (lambda: det.au_spro([[]], [FLAT]), "no defective pixel"),
        (lambda: det.image_auroc([1, 1], [0.1, 0.2]), "2 with and 0 without a defect"),
        (lambda: det.image_auroc([0, 2], [0.1, 0.2]), "labels: expected 0 and 1"),
        (lambda: det.image_auroc([0, 1], [0.1, np.nan]), "scores: NaN"),
        (lambda: det.image_auroc([0, 1], [0.1]), "one for each label"),
        (lambda: det.au_pro([BAD], [FLAT + np.nan]), "maps: NaN in image 0"),
        (lambda: det.au_pro([BAD, GOOD], [FLAT]), "one for each of 2 images, got 1"),
        (lambda: det.au_pro([BAD[0]], [FLAT]), "masks: expected bools or integers"),
        (lambda: det.au_pro([BAD], [FLAT[0]]), r"shape \(height, width\)"),
        (lambda: det.au_pro([BAD], [FLAT], limit=0), "limit: expected a false-positive rate"),
        (lambda: det.au_pro([BAD], [FLAT], connectivity=6), "connectivity: expected 4 or 8"),
        (
            lambda: det.au_spro([[Region(BAD, 0)]], [FLAT]),
            "saturation: expected a number",
        ),
        (lambda: det.au_spro([[Region(GOOD)]], [FLAT]), "regions: one of image 0 has no pixel"),
    ],
)
def test_what_is_not_defined_is_an_error(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def lines_of_python(function, *arguments):
    """How many lines of Python a call executes."""
    count, before = 0, sys.gettrace()

    def note(frame, event, argument):
        nonlocal count
        count += event == "line"
        return note

    sys.settrace(note)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return count


def test_there_is_no_loop_over_thresholds():
    """Thousands of different scores take no more lines of Python than two do."""
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 48, 48), bool)
    for k in range(6):
        i, j = rng.integers(0, 40, 2)
        masks[k % 3, i : i + 8, j : j + 8] = True
    maps = rng.normal(size=masks.shape).astype(np.float32) + masks
    assert len(np.unique(maps)) > 9000
    two = (maps > 1).astype(np.float32)
    all_of(masks, two)  # what happens once is done
    assert lines_of_python(all_of, masks, maps) <= lines_of_python(all_of, masks, two) + 10
