"""The applications: the list that both type checkers and the package read."""

from refinejax.apps import latent as latent
from refinejax.apps import metalens as metalens

__all__ = ["latent", "metalens"]
