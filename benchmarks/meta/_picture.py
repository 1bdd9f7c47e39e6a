"""Draw the success of `learned_refiner` over cost: ``python -m benchmarks.meta._picture``."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS

_LEARNED = "learned damping"


def draw(data: Mapping[str, Any], path: Path) -> None:
    """Draw the share that is not solved, over evaluations of the forward model."""
    import matplotlib.pyplot as plt

    conditions = data["conditions"]
    figure, axes = plt.subplots(
        1, len(conditions), figsize=(4 * len(conditions), 4), sharey=True, layout="constrained"
    )
    for axis, (condition, methods) in zip(axes, conditions.items(), strict=True):
        for method, curve in methods.items():
            left = [max(100 * (1 - share), 0.03) for share in curve["solved"]]
            wide = 2.5 if method == _LEARNED else 1.2
            axis.plot(curve["cost"], left, label=method, linewidth=wide)
        axis.set(
            xscale="log",
            yscale="log",
            xlim=(3, 700),
            title=condition,
            xlabel="evaluations of the forward model",
        )
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("not solved [%]")
    axes[-1].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    docs = Path(__file__).parents[2] / "docs" / "learned_refiner.png"
    parser.add_argument("--data", type=Path, default=RESULTS / "meta" / "learned_refiner.json")
    parser.add_argument("--output", type=Path, default=docs)
    options = parser.parse_args(arguments)
    draw(json.loads(options.data.read_text()), options.output)


if __name__ == "__main__":
    main()
