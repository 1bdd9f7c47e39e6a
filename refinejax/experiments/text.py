"""A comparison as text."""

import math
from typing import TYPE_CHECKING

from refinejax.experiments.intervals import Interval
from refinejax.experiments.sample_size import MOST
from refinejax.experiments.verdict import Guard, Verdict

if TYPE_CHECKING:
    from refinejax.experiments.comparison import Comparison


def explain(c: "Comparison") -> str:
    """Return numbers, verdict with its reason, next step, and warnings.

    Args:
        c: the comparison.
    """
    lines = [numbers(c), f"{c.verdict}: {reason(c)}.", *_guard_lines(c), limits(c)]
    lines += [f"Next: {action(c)}.", *(f"Warning: {text}." for text in c.warnings)]
    return "\n".join(lines)


def numbers(c: "Comparison") -> str:
    """Return means, interval and counts in one line.

    Args:
        c: the comparison.
    """
    d = decimals(c)
    ties = f", {c.ties} equal" if c.ties else ""
    return (
        f"{c.metric} ({c.direction} is better): {c.baseline_arm.mean:.{d}f} → "
        f"{c.candidate_arm.mean:.{d}f}; mean delta {signed(c.mean, d)}, "
        f"{percent(c.level)} t interval {interval(c.interval, d)}, sd {c.sd:.{d}f}, {c.n} pairs, "
        f"{c.ups} up{ties}; p {c.p:.2g} (t), {c.flips.two_sided:.2g} (sign flips); "
        f"P(better) {c.better:.2f}"
    )


def reason(c: "Comparison") -> str:
    """Return the reason of the verdict.

    Args:
        c: the comparison.
    """
    d = decimals(c)
    broken = [guard.metric for guard in c.guards if guard.state == "broken"]
    doubtful = [guard.metric for guard in c.guards if guard.state == "in doubt"]
    if broken:
        return f"guard broken: {', '.join(broken)}"
    if c.verdict is Verdict.REVERT:
        return f"the interval lies below the margin, {c.margin:g}"
    if c.verdict is Verdict.KEEP:
        return f"the interval lies above 0 and the mean reaches the margin, {c.margin:g}"
    if not math.isfinite(c.interval[0]):
        return "all deltas are equal, so that there is no interval"
    if c.interval[0] <= 0:
        return f"the interval {interval(c.interval, d)} holds 0"
    if c.mean < c.margin:
        return f"above 0, but the mean does not reach the margin, {c.margin:g}"
    return f"guard in doubt: {', '.join(doubtful)}"


def limits(c: "Comparison") -> str:
    """Return the smallest effect and the smallest p that this number of pairs can show.

    Args:
        c: the comparison.
    """
    d = decimals(c)
    least = 2.0**-c.n
    text = f"{c.n} pairs at this sd show a true mean of {c.detectable:.{d}f} in 4 cases of 5"
    if 2 * least > 0.05:
        text += (
            f"; no result of {c.n} pairs has a sign-flip p below {least:.3g} one-sided "
            f"({2 * least:.3g} two-sided), so none can reach 0.05"
            if least > 0.05
            else f"; no result of {c.n} pairs has a two-sided sign-flip p below {2 * least:.3g}"
        )
    return text + "."


def action(c: "Comparison") -> str:
    """Return the next step.

    Args:
        c: the comparison.
    """
    noun = "seeds" if all(isinstance(pair, int) for pair in c.pairs) else "pairs"
    if c.verdict is Verdict.KEEP:
        return f"keep, and confirm on fresh {noun}"
    if c.verdict is Verdict.REVERT:
        return "revert"
    later = [look for look in c.looks if look > c.n]
    if c.looks and not later:
        return "revert, as the planned looks are over and it has not shown itself"
    begin = "promote (every pair is up and the mean reaches the margin): " if c.promote else ""
    if later:
        return f"{begin}go on to {later[0]} {noun}"
    if c.needed is None:
        return f"{begin}no number of {noun} up to {MOST:,} would decide"
    if c.needed <= c.n:
        return f"{begin}so many seeds decide in 4 cases of 5, and did not: more on fresh {noun}"
    return f"{begin}{c.needed} {noun} would decide in 4 cases of 5, if mean and sd are as seen"


def _guard_lines(c: "Comparison") -> list[str]:
    return [f"Guard {guard_text(guard)}." for guard in c.guards]


def guard_text(guard: Guard) -> str:
    """Return the numbers of a guard.

    Args:
        guard: the guard.
    """
    width = guard.interval[1] - guard.interval[0]
    d = places(width / 4 if math.isfinite(width) else abs(guard.mean))
    return (
        f"{guard.metric}: {guard.state}, mean {signed(guard.mean, d)}, interval "
        f"{interval(guard.interval, d)}, tolerance {guard.tolerance:g}"
    )


def decimals(c: "Comparison") -> int:
    """Return the number of decimals that shows two digits of the standard deviation.

    Args:
        c: the comparison.
    """
    return places(c.sd or abs(c.mean))


def places(scale: float) -> int:
    """Return the number of decimals that shows two digits of a number.

    Args:
        scale: the number, 0 or more.
    """
    return min(9, max(0, 1 - math.floor(math.log10(scale) + 1e-9))) if scale > 0 else 1


def signed(number: float, places: int) -> str:
    """Return +1.2 or −1.2.

    Args:
        number: the number.
        places: decimals.
    """
    return f"{number:+.{places}f}".replace("-", "−")


def interval(ends: Interval, places: int) -> str:
    """Return [−0.2, +6.2]; "none" for an infinite interval.

    Args:
        ends: lower and upper end.
        places: decimals.
    """
    if not math.isfinite(ends[0]):
        return "none"
    return f"[{signed(ends[0], places)}, {signed(ends[1], places)}]"


def percent(level: float) -> str:
    """Return 95 %.

    Args:
        level: a fraction.
    """
    return f"{100 * level:.3g} %"
