"""What this application adds to refinejax: two commands."""

from refinejax.apps import Application, Command

APPLICATION = Application(
    "damped-sine",
    commands={
        "damped-sine": Command(
            "height, decay and frequency of damped sines",
            options="damped_sine.command:add_options",
            run="damped_sine.command:run",
        ),
        "simulate damped-sine": Command(
            "make damped sines, with noise, to try it on",
            options="damped_sine.simulate:add_options",
            run="damped_sine.simulate:run",
        ),
    },
    example="""\
refinejax simulate damped-sine --count 100 --output signals.npz
refinejax damped-sine signals.npz --output fits.npz --report report
""",
)
