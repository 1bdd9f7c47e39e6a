"""The phase of a metalens seen through a square window, and lenses from slopes of that phase."""

from refinejax.physics.metalens.lens import LASER_LINES as LASER_LINES
from refinejax.physics.metalens.lens import LOWER as LOWER
from refinejax.physics.metalens.lens import NAMES as NAMES
from refinejax.physics.metalens.lens import UNITS as UNITS
from refinejax.physics.metalens.lens import UPPER as UPPER
from refinejax.physics.metalens.lens import channels as channels
from refinejax.physics.metalens.lens import phase as phase
from refinejax.physics.metalens.lens import phase_at as phase_at
from refinejax.physics.metalens.lens import pixel_grid as pixel_grid
from refinejax.physics.metalens.lens import turns_at as turns_at
from refinejax.physics.metalens.lens import wrapped_phase as wrapped_phase
from refinejax.physics.metalens.slopes import lens_from_slopes as lens_from_slopes
