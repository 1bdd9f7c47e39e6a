"""Refiners that are learned (flax.nnx), and how they are trained."""

from refinejax.learned.builders import ARCHITECTURES as ARCHITECTURES
from refinejax.learned.builders import DampingConfig as DampingConfig
from refinejax.learned.builders import UpdateConfig as UpdateConfig
from refinejax.learned.builders import builder as builder
from refinejax.learned.damping import LearnedDamping as LearnedDamping
from refinejax.learned.imitation import Imitation as Imitation
from refinejax.learned.maps import Phasors as Phasors
from refinejax.learned.maps import Relative as Relative
from refinejax.learned.unrolled import Unrolled as Unrolled
from refinejax.learned.update import LearnedUpdate as LearnedUpdate
