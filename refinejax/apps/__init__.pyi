"""The applications: the list that both type checkers and the package read."""

from refinejax._applications import Application as Application
from refinejax._applications import Command as Command
from refinejax.apps import latent as latent
from refinejax.apps import metalens as metalens

__all__ = ["Application", "Command", "latent", "metalens"]
