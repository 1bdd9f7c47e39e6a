"""How often is a drawn fit right, not called converged, or refused, and how often wrong?

2,000 fits are drawn (`_drawn`): models, dtypes, units from 1e-12 to 1e12, bounds, missing pixels,
kinds of arrays and ways of calling. SciPy fits each in float64 and without units; the judge says
how each sample has ended. The same strategies are those of ``tests/properties``.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks.core._drawn import judge as judges
from benchmarks.core._drawn.cases import FRAMES, Case, cases
from benchmarks.core._drawn.judge import Verdict, judge
from benchmarks.evidence import Claim
from benchmarks.harness import Data, Options, environment, note
from benchmarks.render import Block, Table

COUNT, QUICK, SEED = 2000, 50, 20
OUTCOMES = (
    judges.RIGHT,
    judges.OPEN,
    judges.LOCAL,
    judges.REFUSED,
    judges.WRONG,
    judges.BROKEN,
)
GROUPS = {
    "all": lambda case: True,
    "`refine`": lambda case: FRAMES[case.frame].entry == "refine",
    "`run_batch`, `run_stream`": lambda case: FRAMES[case.frame].entry != "refine",
    "float16": lambda case: FRAMES[case.frame].dtype == "float16",
    "float32": lambda case: FRAMES[case.frame].dtype == "float32",
    "float64": lambda case: FRAMES[case.frame].dtype == "float64",
    "Levenberg–Marquardt": lambda case: _is_least_squares(FRAMES[case.frame]),
    "L-BFGS": lambda case: FRAMES[case.frame].method == "lbfgs",
    "a black box, CMA-ES": lambda case: FRAMES[case.frame].form == "black box",
    "with bounds": lambda case: FRAMES[case.frame].bounded,
    "with missing pixels": lambda case: case.missing != "none",
    "units beyond 1e-6 and 1e6": lambda case: _is_extreme(case),
    "standard errors asked for": lambda case: case.errors,
}


def _is_least_squares(frame: Any) -> bool:
    return frame.method in ("auto", "lm") and frame.form != "black box"


def _is_extreme(case: Case) -> bool:
    return any(not 1e-6 <= unit <= 1e6 for unit in (case.unit, *case.scales))


def draw(count: int) -> list[tuple[Case, Verdict]]:
    """Draw cases and judge them; the same each time.

    Args:
        count: of cases.
    """
    found: list[tuple[Case, Verdict]] = []

    @seed(SEED)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(cases())
    def run(case: Case) -> None:
        found.append((case, judge(case)))
        if len(found) % 100 == 0:
            note(f"{len(found)} of {count}")

    run()
    return found


def measure(options: Options) -> dict[str, Any]:
    """Draw the cases and count how their samples have ended."""
    found = draw(QUICK if options.quick else COUNT)
    groups = {name: [pair for pair in found if holds(pair[0])] for name, holds in GROUPS.items()}
    return {
        "environment": environment(),
        "settings": {"quick": options.quick, "cases": len(found), "seed": SEED},
        "rows": [{"group": name, **_counts(pairs)} for name, pairs in groups.items()],
        "faults": [{"case": repr(case), "faults": v.faults} for case, v in found if v.faults],
    }


def _counts(pairs: list[tuple[Case, Verdict]]) -> dict[str, Any]:
    total: Counter[str] = sum((verdict.counts for _, verdict in pairs), Counter())
    return {"cases": len(pairs), "outcomes": {name: total[name] for name in OUTCOMES}}


def rows(data: Data) -> Iterator[Block]:
    """Show how the samples of each group have ended."""
    yield Table.of(_row(row) for row in data["rows"])
    settings, whole = data["settings"], data["rows"][0]["outcomes"]
    samples = sum(whole.values())
    yield (
        f"{settings['cases']:,} drawn fits, {samples:,} samples (a refused fit counts once). "
        "Right: the sum of squares exceeds the least one that SciPy finds in float64 by no more "
        "than a quarter of a standard error, or the rounding of observations and params, explains. "
        f"{len(data['faults'])} of the fits break a promise."
    )


def _row(row: Mapping[str, Any]) -> dict[str, str]:
    outcomes = row["outcomes"]
    return {
        "fits": row["group"],
        "drawn": f"{row['cases']:,}",
        **{name: f"{outcomes[name]:,}" for name in OUTCOMES},
    }


def claims(data: Data) -> Iterator[Claim]:
    """Claim nothing: there is no peer."""
    del data
    return iter(())
