"""Does target search through a trained model find better inputs, sooner, and are its claims true?

A multi-task model (encoder 12 → 64 → 64 → 8, heads of two numbers and three classes, decoder) is
trained on data near a curved surface. Asked: two values and a class, from rows of the data. The
loss, squared misses in standard deviations and −log p, is evaluated in float64 for all alike, by
code apart from theirs.

1. Against the loop of the literature in PyTorch: Adam on the input of a batch of samples, 200
   steps, restarts one after another, the last iterate. Its learning rate is the best of three. Ours
   to its own end, and ended after 40 steps. Eight starts of each sample, and 64 of a single one.
2. Against BoTorch: `gen_candidates_scipy` (L-BFGS-B, float64) from the same perturbed starts within
   the bounds of the data, in its better mode: all starts of a sample as one problem, or each as its
   own with evaluations together. Timed on a few samples; the time a sample does not depend on how
   many there are.
3. Round trip: the same loop on the latent of an autoencoder that folds it (`_ring`), for a
   class: the probability it claims for its latent, and the model's for the input it returns;
   beside it `optimize_latent` with its defaults.
4. The answers for a sample alone, in a batch of 64 and of 1,024.

Runs are starts times samples. Times of all peers are taken in turns, PyTorch with the number of
threads, one or one a core, that is quicker for it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.evidence import METRIC, Claim, logarithms, spread_times
from benchmarks.harness import Data, Options, environment, note, race, ratio, spread, spreads
from benchmarks.latent import _ring
from benchmarks.latent._model import KIND, NUMBERS, WIDTH, Study, judge, make_study
from benchmarks.render import Block, Table, machine, multiple, over_seeds, plus_minus
from refinejax.apps.latent import InClasses, LatentResult, Match, Search, optimize_latent

RESTARTS, MANY, SPREAD, STEPS = 8, 64, 0.3, 200
BRIEF = 40  # steps after which ours is about as good as the loop of the literature
RATES = (0.01, 0.03, 0.1)
RIVALS = {"literature": "the loop of the literature", "botorch": "BoTorch"}
PEERS = {
    "ours": "`optimize_latent`",
    "ours, brief": "`optimize_latent`, {brief} steps",
    "literature": "Adam in PyTorch, {steps} steps",
    "together": "L-BFGS-B, starts as one problem",
    "apart": "L-BFGS-B, each start its own",
}


def ours(
    study: Study,
    inputs: np.ndarray,
    bounds: str | None,
    *,
    restarts: int = RESTARTS,
    **options: Any,
) -> LatentResult:
    """Search over the input for all that is asked."""
    targets = [Match(n, v) for n, v in zip(NUMBERS, study.wanted, strict=True)]
    return optimize_latent(
        study.model,
        [*targets, InClasses(KIND, study.kind)],
        inputs,
        search=Search(over="input", restarts=restarts, std=SPREAD),
        bounds=bounds,
        **options,
    )


def literature_speed(study: Study, samples: int, restarts: int, repeats: int) -> dict[str, Any]:
    """Time the loop of the literature and ours in turns on the same samples."""
    from benchmarks.peers.torch_latent import TorchModel, literature, quickest_threads

    model, inputs = TorchModel(study), study.inputs[:samples]

    def theirs(rate: float) -> np.ndarray:
        ends = literature(model, inputs, rate=rate, steps=STEPS, restarts=restarts)
        return ends.swapaxes(0, 1)

    def mine(**options: Any) -> np.ndarray:
        return ours(study, inputs, None, restarts=restarts, **options).optimized_input

    rate = min(RATES, key=lambda rate: _best(study, theirs(rate)))
    threads = quickest_threads(lambda: theirs(rate))
    peers: dict[str, Callable[[], Any]] = {
        "ours": mine,
        "ours, brief": lambda: mine(max_steps=BRIEF),
        "literature": lambda: theirs(rate),
    }
    return {
        "rate": rate,
        "threads": threads,
        **_raced(study, peers, (samples, samples, restarts), repeats),
    }


def botorch_speed(study: Study, samples: int, few: int, repeats: int, seed: int) -> dict[str, Any]:
    """Time BoTorch on a few samples and ours on all, in turns; its better mode counts."""
    import torch  # pyright: ignore[reportMissingImports]  # in the extra `bench`

    from benchmarks.peers.torch_latent import TorchModel, botorch, quickest_threads

    model = TorchModel(study, torch.float64)
    low, high = np.asarray(study.model.lower, float), np.asarray(study.model.upper, float)
    inputs, random = study.inputs[:samples], np.random.default_rng(seed)
    noise = random.standard_normal((samples, RESTARTS, WIDTH)) * np.asarray(study.model.input_scale)
    noise[:, 0] = 0
    starts = np.clip(inputs[:, None] + SPREAD * noise, low, high)[:few].reshape(-1, WIDTH)
    shape = (few, RESTARTS, WIDTH)

    def theirs(parallel: bool) -> np.ndarray:
        found = botorch(model, starts, (low, high), parallel=parallel, together=RESTARTS)
        return found.reshape(shape)

    peers: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours(study, inputs, "data").optimized_input,
        "together": lambda: theirs(False),
        "apart": lambda: theirs(True),
    }
    threads = quickest_threads(lambda: theirs(True))
    return {"threads": threads, **_raced(study, peers, (samples, few, RESTARTS), repeats)}


def _raced(
    study: Study,
    peers: dict[str, Callable[[], Any]],
    size: tuple[int, int, int],
    repeats: int,
) -> dict[str, Any]:
    """Return rates and losses of each peer, the losses on the samples that all have.

    ``size``: samples that ours gets, those that all get, and starts of each.
    """
    samples, few, restarts = size
    times, ends = race(peers, repeats)
    each = {
        name: [second / (samples if name.startswith("ours") else few) for second in timing.runs]
        for name, timing in times.items()
    }
    return {
        "samples": samples,
        "few": few,
        "restarts": restarts,
        "peers": {
            name: {
                "rate": restarts / float(np.median(each[name])),
                "times": ratio(each[name], each["ours"]),
                "loss": _best(study, ends[name][:few]),
                "all": float(np.mean(judge(study, ends[name][:few])[0])),
                "compile": times[name].compile,
            }
            for name in peers
        },
    }


def _best(study: Study, ends: np.ndarray) -> float:
    """Return the mean over samples of the least loss of their restarts (B, R, D)."""
    return float(np.mean(np.min(judge(study, ends)[0], axis=1)))


def round_trip(samples: int, seed: int) -> dict[str, Any]:
    """Ask for the class alone, over the latent: probability claimed, and of what comes back."""
    inputs = _ring.make_inputs(samples, seed)
    claimed, found = _ring.latent_alone(inputs, rate=0.1, steps=STEPS)
    returned = _ring.probability(found)
    best = _ring.probability(_ring.ours(inputs))
    return {
        "before": float(np.mean(_ring.probability(inputs))),
        "claimed": float(np.mean(claimed)),
        "returned": float(np.mean(returned)),
        "ours": float(np.mean(best)),
        "ours_worst": float(np.min(best)),
    }


def company(study: Study, few: int, sizes: Sequence[int]) -> dict[str, Any]:
    """Compare the answers for some samples alone and in batches, in standard deviations."""
    scale = np.asarray(study.model.input_scale)
    rows = np.resize(np.arange(len(study.inputs)), max(sizes))
    inputs = study.inputs[rows]
    alone = [ours(study, inputs[i], "data", ids=[i]) for i in range(few)]
    found = {}
    for size in sizes:
        whole = ours(study, inputs[:size], "data")
        far = [
            np.max(np.abs(whole.optimized_input[i] - one.optimized_input[0]) / scale)
            for i, one in enumerate(alone)
        ]
        same = [whole.best[i] == one.best[0] for i, one in enumerate(alone)]
        found[str(size)] = {"farthest": float(np.max(far)), "same_best": float(np.mean(same))}
    return found


def one_seed(quick: bool, seed: int) -> dict[str, Any]:
    """Take all measurements for a seed."""
    note(f"seed {seed}")
    rows, steps = (300, 200) if quick else (1024, 1200)
    study = make_study(seed, rows, steps)
    sizes = (1, 16) if quick else (1, 64, 256)
    loops = [(size, RESTARTS) for size in sizes] + ([] if quick else [(1, MANY)])
    return {
        "literature": [literature_speed(study, *loop, 1 if quick else 3) for loop in loops],
        "botorch": [
            botorch_speed(study, size, min(size, 2 if quick else 8), 1 if quick else 3, seed)
            for size in sizes
        ],
        "round_trip": round_trip(16 if quick else 256, seed),
        "company": company(study, 2 if quick else 16, (16,) if quick else (64, 1024)),
    }


def measure(options: Options) -> dict[str, Any]:
    """Take all measurements, and combine the seeds."""
    quick, seeds = options.quick, options.seeds
    every = [one_seed(quick, seed) for seed in range(seeds)]
    speed = []
    for rival in ("literature", "botorch"):
        for i, first in enumerate(every[0][rival]):
            size = {key: first[key] for key in ("samples", "restarts")}
            for peer in first["peers"]:
                values = [one[rival][i]["peers"][peer] for one in every]
                sums = spreads(values)
                threads = [one[rival][i]["threads"] for one in every]
                speed.append({"rival": rival, **size, "peer": peer, "threads": threads, **sums})
    return {
        "environment": environment(),
        "settings": {
            "quick": quick,
            "seeds": seeds,
            "steps": STEPS,
            "brief": BRIEF,
            "rates": [one["literature"][0]["rate"] for one in every],
            "few": every[0]["botorch"][-1]["few"],
        },
        "speed": speed,
        "round_trip": spreads([one["round_trip"] for one in every]),
        "company": {
            size: {
                key: spread([one["company"][size][key] for one in every])
                for key in ("farthest", "same_best")
            }
            for size in every[0]["company"]
        },
    }


def rows(data: Data) -> Iterator[Block]:
    """Show speed and loss beside the loop of the literature and BoTorch; round trip; batches."""
    settings = data["settings"]
    yield Table.of(
        {
            "against": RIVALS[row["rival"]],
            "samples × starts": f"{row['samples']} × {row['restarts']}",
            "method": PEERS[row["peer"]].format(**settings),
            "time a run": multiple(row["times"], unit=row["peer"] == "ours"),
            "runs/s": plus_minus(row["rate"]),
            "loss, best start": plus_minus(row["loss"]),
            "all starts": plus_minus(row["all"]),
        }
        for row in data["speed"]
    )
    yield (
        "A run is one start of a sample. Against BoTorch within the bounds of the data, timed on "
        f"at most {settings['few']} samples; PyTorch with the number of threads that is fastest. "
        f"{machine(data)}, {over_seeds(settings['seeds'])}."
    )
    found = {name: plus_minus(value, 2) for name, value in data["round_trip"].items()}
    yield (
        "Round trip, on a latent that the decoder takes modulo a turn: Adam on the latent alone "
        f"claims a class probability of {found['claimed']}, and the input it returns has "
        f"{found['returned']} (before: {found['before']}); `optimize_latent` with its defaults "
        f"{found['ours']} (least {found['ours_worst']})."
    )
    parts = [
        f"in {int(size):,}: at most {row['farthest']['max']:.1g} standard deviations apart, the "
        f"same best start in {100 * row['same_best']['mean']:.0f} %"
        for size, row in data["company"].items()
    ]
    yield f"Answers alone and in a batch: {'; '.join(parts)}."


def claims(data: Data) -> Iterator[Claim]:
    """Claim that a run takes less time, while the loss of the best start is not higher."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in data["speed"]:
        part = f"{row['samples']} × {row['restarts']}, {RIVALS[row['rival']]}"
        named = {**row, "peer": PEERS[row["peer"]].format(**data["settings"])}
        ways = [name for name in PEERS if name.startswith("ours")]
        for ours in [row["peer"]] if row["peer"] in ways else ways:
            found.setdefault((part, PEERS[ours].format(**data["settings"])), []).append(named)
    for (part, ours), some in found.items():
        if any(row["peer"] == ours for row in some):
            losses = {row["peer"]: row["loss"]["values"] for row in some}
            metrics = {METRIC: logarithms(spread_times(some)), "loss": losses}
            yield Claim(part, ours, metrics)
