"""The README's table of target search."""

from collections.abc import Mapping
from typing import Any

from benchmarks._common import plus_minus
from benchmarks._markdown import machine, markdown, seeds

RIVALS = {"literature": "the loop of the literature", "botorch": "BoTorch"}
PEERS = {
    "ours": "`optimize_latent`",
    "ours, brief": "`optimize_latent`, {brief} steps",
    "literature": "Adam in PyTorch, {steps} steps",
    "together": "L-BFGS-B, starts as one problem",
    "apart": "L-BFGS-B, each start its own",
}


def latent(data: Mapping[str, Any]) -> str:
    """Speed and loss beside the loop of the literature and BoTorch; round trip; company."""
    settings = data["settings"]
    rows = [
        {
            "against": RIVALS[row["rival"]],
            "samples × starts": f"{row['samples']} × {row['restarts']}",
            "method": PEERS[row["peer"]].format(**settings),
            "time a run": "1" if row["peer"] == "ours" else plus_minus(row["times"]) + " ×",
            "runs/s": plus_minus(row["rate"]),
            "loss, best start": plus_minus(row["loss"]),
            "all starts": plus_minus(row["all"]),
        }
        for row in data["speed"]
    ]
    note = (
        "A run is one start of a sample. Against BoTorch within the "
        f"bounds of the data, timed on at most {settings['few']} samples; PyTorch with as many "
        f"threads as suit it best. {machine(data)}, "
        f"{seeds(settings['seeds'])}."
    )
    return "\n\n".join([markdown(rows), note, _round_trip(data), _company(data)])


def _round_trip(data: Mapping[str, Any]) -> str:
    found = {name: plus_minus(value, 2) for name, value in data["round_trip"].items()}
    return (
        "Round trip, on a latent that the decoder takes modulo a turn: Adam on the latent alone "
        "claims a class "
        f"probability of {found['claimed']}, and the input it hands out has {found['returned']} "
        f"(before: {found['before']}); `optimize_latent` with its defaults {found['ours']} "
        f"(least {found['ours_worst']})."
    )


def _company(data: Mapping[str, Any]) -> str:
    parts = [
        f"in {int(size):,}: at most {row['farthest']['max']:.1g} standard deviations apart, the "
        f"same best start in {100 * row['same_best']['mean']:.0f} %"
        for size, row in data["company"].items()
    ]
    return f"Answers alone and in a batch: {'; '.join(parts)}."
