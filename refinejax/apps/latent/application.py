"""What this application adds to the command line, to training and to the models."""

from refinejax._applications import Application, Command

APPLICATION = Application(
    "latent",
    commands={
        "latent": Command(
            "inputs for which a trained model predicts the targets",
            options="refinejax.apps.latent.command:add_options",
            run="refinejax.apps.latent.command:run",
        )
    },
    trainings={"multitask": "refinejax.apps.latent.training:plan_multitask"},
    architectures={"multitask": "refinejax.apps.latent.multitask:build_multitask"},
)
