"""The command line. It knows no application: their commands come from `refinejax._applications`."""

from refinejax.cli.main import main as main
