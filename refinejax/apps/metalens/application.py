"""What this application adds to the command line, to training and to the models."""

from refinejax._applications import Application, Command

_HERE = "refinejax.apps.metalens"

APPLICATION = Application(
    "metalens",
    commands={
        "metalens": Command(
            "lens parameters from wrapped phase maps",
            options=f"{_HERE}.command:add_options",
            run=f"{_HERE}.command:run",
        ),
        "simulate metalens": Command(
            "make phase maps, with noise, to try it on",
            options=f"{_HERE}.simulate_command:add_options",
            run=f"{_HERE}.simulate_command:run",
        ),
    },
    example="""\
refinejax simulate metalens --count 64 --size 64 --noise grain --error 0.05 --output maps.npz
refinejax metalens maps.npz --output refined.npz --report report
""",
    trainings={"predictor": f"{_HERE}.train:plan_predictor"},
    tasks={"lenses": f"{_HERE}.tasks:lenses"},
    architectures={
        "predictor": f"{_HERE}.architecture:build_predictor",
        "phasor_update": f"{_HERE}.phasors:build_phasor_update",
    },
    pretrained=(f"{_HERE}:pretrained",),
)
