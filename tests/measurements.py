"""Measurements as the benchmarks write them, with few and simple numbers."""

from benchmarks import harness

ENVIRONMENT = {"cpus": 2, "device": "cpu", "packages": {"jax": "0.10.2"}}


def spread(*values):
    return harness.spread(values)


def adam_data():
    shares = {"solved": spread(0.25, 0.75), "exact": spread(0.0, 0.0), "rmse": spread(1.0)}
    none = {**shares, "solved": spread(0.0, 0.0)}
    at = {"free": "five", "error": 0.01}
    adam = {**at, "method": "adam", "schedule": "constant", "steps": 500}
    cost = {"times": spread(1.0, 3.0), "rate": spread(10.0, 20.0), "memory": 50.2}
    cost |= {"samples": 4, "steps": 9, "first_call": 1.5, "chunk": 8}
    return {
        "environment": ENVIRONMENT,
        "settings": {"solved_below": 1e-3, "exact_at_most": 2e-3, "samples_a_seed": 8, "seeds": 2},
        "success": [
            {**adam, "rate": 1e-2, **none},
            {**adam, "rate": 1e-4, **shares},
            {**at, "method": "lbfgs", **shares},
        ],
        "torch": [{"method": "torch", "kept": "last", "error": 0.01, "steps": 9, **shares}],
        "speed": [{"peer": p, **cost} for p in ("run_batch", "torch batched", "torch one by one")],
    }


def batching_data():
    gain = {name: spread(3.0, 5.0) for name in ("whole", "chunks", "best chunks")}
    row = {"problem": "phase", "tail": "tail", "batch": 1024, "lanes": 32, "best": "lax.map 8"}
    gains = [{"whole": 2.0 + 0.1 * seed, "chunks": 0.5 - 0.01 * seed} for seed in range(3)]
    return {
        "environment": ENVIRONMENT,
        "settings": {"quick": False},
        "summary": [{**row, "gain": gain, "ideal": spread(14.3), "micros": spread(80.0)}],
        "compile": [{"problem": "phase", "engine": 2.0, "whole": 1.0}],
        "sweeps": [{part: {**row, "relative": {"8": 1.25}} for part in ("lanes", "chunks")}],
        "cases": [{**row, "seed": seed, "gain": gain} for seed, gain in enumerate(gains)],
    }


def metalens_data():
    half = {"solved": spread(0.25, 0.75), "right": spread(0.5), "samples": 8}
    settings = {"solved_at_most": 2e-3, "slack": 1.02, "adam_steps": 300, "seeds": 2}
    speed = {"times": spread(3.0, 5.0), "rate": spread(10.0), "solved": spread(1.0), "compile": 2.0}
    return {
        "environment": ENVIRONMENT,
        "settings": settings,
        "success": [
            {"size": 64, "error": 0.01, "method": "cascade", **half},
            {"size": 64, "error": 0.01, "method": "LM", **half},
            {"size": 128, "error": 0.2, "method": "cascade", **half},
        ],
        "noise": [{"noise": "grain", "floor": spread(0.2), **half}],
        "speed": [{"peer": name, **speed} for name in ("cascade", "SciPy")],
    }


def least_squares_data():
    numbers = {"cpu_ratio": spread(3.0, 5.0), "wall_ratio": spread(2.0), "solved": spread(1.0)}
    numbers |= {"cpu": spread(5e-5), "wall": spread(1e-4), "compile": 2.0}
    numbers |= {"settings": {"residual": "turns", "group": 16, "number": 1e-3}}
    settings = {"quick": False, "seeds": 2, "solved_at_most": 2e-3, "error": 0.01}
    ratios = {"ours": [1.0, 1.0, 1.0], "SciPy": [3.0, 3.5, 4.0], "swift": [0.5, 0.6, 0.5]}
    speed = [
        {"peer": peer, "samples": 9, "seeds": [{"cpu_ratio": x} for x in ratio], **numbers}
        for peer, ratio in ratios.items()
    ]
    nist = {"method": "refinejax LM", "steps": 500, "of": 54, "right": 53, "failed": ["MGH10 1"]}
    counts = {"method": "refinejax LM", "of": 53, "solved": 51, "exact": 50, "failed": ["cube 8"]}
    return {
        "environment": ENVIRONMENT,
        "settings": settings,
        "pointwise": speed,
        "image": speed,
        "nist": [
            {**nist, "dtype": "float64", "digits_wanted": 6},
            {**nist, "dtype": "float32", "digits_wanted": 3, "right": 44},
        ],
        "more_wild": {
            "steps": 500,
            "tau": 1e-7,
            **{key: {"summary": [counts]} for key in ("unbounded", "bounded")},
        },
    }


def one_pass_data():
    numbers = {"cpu_ratio": spread(3.0, 5.0), "cpu": spread(2e-9), "wall": spread(2e-9)}
    names = ("C", "pass", "pass along a triangle", "step")
    settings = {"seeds": 2, "maps": 64, "flags": ["-O3"]}
    rows = [{"what": name, **numbers} for name in names]
    return {"environment": ENVIRONMENT, "settings": settings, "rows": rows}


def populations_data():
    numbers = {"times": spread(3.0, 5.0), "rate": spread(10.0), "solved": spread(1.0)}
    numbers |= {"compile": 2.0, "memory": 50.2}
    return {
        "environment": ENVIRONMENT,
        "settings": {"seeds": 2, "maps": 8, "batched": 4, "one_by_one": 2},
        "rows": [{"peer": peer, **numbers} for peer in ("refinejax", "pycma, one by one")],
        "hybrid": {"error": 0.05, "exact": spread(0.5, 1.0), "rate": spread(30.0)},
    }


def evolution_data():
    agreement = {"function": "cigar", "n": 5, "ours": spread(7.0, 9.0), "pycma": spread(8.0)}
    rastrigin = {"method": "CMA-ES", "budget": 10_000, "functions": 32}
    bound = {"where": "inside", "way": "ours", "evaluations": spread(70.0), "solved": 1.0}
    return {
        "environment": ENVIRONMENT,
        "settings": {"seeds": 2, "quick": False},
        "agreement": [{**agreement, "of": 3}],
        "bounds": [bound, {**bound, "where": "in a corner", "way": "penalty", "evaluations": None}],
        "rastrigin": [
            {**rastrigin, "n": 2, "loss": spread(1.8)},
            {**rastrigin, "n": 10, "loss": spread(28.0)},
        ],
    }


def compiled_data():
    row = {"job": "CMA-ES", "maps": 32, "begin_cold": spread(9.0, 11.0), "begin_warm": spread(2.0)}
    row |= {"begin_ratio": spread(0.2), "whole_ratio": spread(0.4)}
    return {"environment": ENVIRONMENT, "settings": {"seeds": 2, "quick": False}, "rows": [row]}


def bbob_data():
    settings = {"seeds": 2, "dimension": 5, "budget": 10_000}
    rows = [{"method": "refinejax BIPOP", "of": 48, "solved": spread(30.0, 32.0)}]
    rows[0]["by_function"] = [1.0, 0.25]
    return {"environment": ENVIRONMENT, "settings": settings, "rows": rows}


def learned_data():
    curve = {"cost": [6.0, 36.0, 66.0], "solved": [0.0, 0.5, 1.0]}
    curve["steps"] = {"5": spread(0.4, 0.6)}
    settings = {"seeds": 2, "tasks": 2000, "quick": False}
    conditions = {"as trained": {"learned damping": curve}, "3 × noise": {"learned damping": curve}}
    return {"environment": ENVIRONMENT, "settings": settings, "conditions": conditions}


def pipeline_data():
    row = {name: spread(1.0, 3.0) for name in ("xc", "yc", "S", "focal_length", "rmse", "rate")}
    row |= {"noise": "all", "way": "predictor", "maps": 600, "solved": spread(0.5)}
    rows = [row, {**row, "way": "Adam", "maps": 100}]
    settings = {"seeds": 2, "quick": False}
    parts = {"rows": rows, "off": [row]}
    return {"environment": ENVIRONMENT, "settings": settings, **parts}


def latent_data():
    numbers = {name: spread(3.0, 5.0) for name in ("rate", "times", "loss", "all", "compile")}
    pairs = [("literature", ("ours", "ours, brief", "literature")), ("botorch", ("ours", "apart"))]
    settings = {"seeds": 2, "quick": False, "steps": 200, "brief": 40, "few": 8}
    names = ("before", "claimed", "returned", "ours", "ours_worst")
    same = {"farthest": spread(0.0), "same_best": spread(1.0)}
    return {
        "environment": ENVIRONMENT,
        "settings": settings,
        "speed": [
            {"rival": rival, "samples": 64, "restarts": 8, "peer": peer, **numbers}
            for rival, peers in pairs
            for peer in peers
        ],
        "round_trip": {name: spread(0.25, 0.75) for name in names},
        "company": {"64": same, "1024": same},
    }


def meta_data():
    row = {"estimator": "PES", "samples": 6144, "deviations": 1.23}
    row |= {"estimate": [0.3, 0.43], "exact": [0.3, 0.4]}
    noisy = {"horizon": 100, "window": 5, "best_rate": 0.1685, "best_loss": 0.1295}
    noisy |= {name: {"PES": spread(0.16, 0.18)} for name in ("rates", "losses")}
    return {
        "environment": ENVIRONMENT,
        "settings": {"seeds": 2, "quick": False},
        "bias": [{**row, "window": 1}, {**row, "window": 40, "deviations": 0.5}],
        "noisy": noisy,
    }


def meta_tables_data():
    """Return the measurements of the other benchmarks of meta-learning, by name."""
    loss, shares = spread(0.5, 0.7), spread(0.0, 0.0)
    law = {"LSTM": {n: {"mean": loss, "diverged": shares} for n in ("20", "100", "500")}}
    sinusoid = {"0": loss, "1": loss, "10": None, "best": loss}
    lens = {"kind": "novel", "method": "LM", "steps": spread(10.0), "speed": spread(50.0)}
    digits = {name: spread(50.0, 60.0) for name in ("target", "steps", "final", "diverged")}
    digits |= {"network": "20, tanh"}
    speed = {name: spread(1.0, 2.0) for name in ("times", "micros", "compile")}
    speed |= {"tasks": 64, "part": "step"}
    common = {"seeds": 2, "tasks": 8, "steps": 100, "far": 500, "ahead": 100, "horizon": 50}
    common |= {"layers": 16, "size": [256, 512]}
    parts = {
        "meta.quadratics": {"laws": {"normal": law, "uniform": law}},
        "meta.sinusoid": {"rows": {"MAML": sinusoid}},
        "meta.lista": {"recovery": {"cpss": spread(-60.0, -62.0)}, "lasso": {"FISTA": loss}},
        "meta.lens": {"rows": [{**lens, "reached": spread(1.0), "loss": spread(2e-9)}]},
        "meta.digits": {"rows": [digits | {"method": m} for m in ("Adam", "RNNprop, learned")]},
        "meta.speed": {"rows": [speed | {"peer": p} for p in ("refinejax", "opifex")]},
    }
    return {
        n: {"environment": ENVIRONMENT, "settings": common, **part} for n, part in parts.items()
    }


def drawn_data():
    outcomes = {"right": 7, "not called converged": 2, "refused": 1, "wrong": 0, "broken": 0}
    outcomes |= {"a local minimum": 0}
    return {
        "environment": ENVIRONMENT,
        "settings": {"quick": False, "cases": 4, "seed": 1},
        "rows": [{"group": "all", "cases": 4, "outcomes": outcomes}],
        "faults": [],
    }


def every() -> dict[str, dict]:
    """Return benchmark → its measurements."""
    return {
        **meta_tables_data(),
        "core.bbob": bbob_data(),
        "core.compiled": compiled_data(),
        "core.continuous_batching": batching_data(),
        "core.evolution": evolution_data(),
        "core.least_squares": least_squares_data(),
        "core.one_pass": one_pass_data(),
        "core.right_or_refused": drawn_data(),
        "latent.search": latent_data(),
        "meta.estimators": meta_data(),
        "meta.learned_refiner": learned_data(),
        "metalens.adam_tto": adam_data(),
        "metalens.inversion": metalens_data(),
        "metalens.pipeline": pipeline_data(),
        "metalens.populations": populations_data(),
    }
