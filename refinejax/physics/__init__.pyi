"""The physics: the list that both type checkers and the package read."""

from refinejax.physics import fields as fields
from refinejax.physics import metalens as metalens
from refinejax.physics import noise as noise
from refinejax.physics import phase as phase
from refinejax.physics import slopes as slopes

__all__ = ["fields", "metalens", "noise", "phase", "slopes"]
