"""Refiners that are learned (flax.nnx), and how they are trained."""

from refinejax.learned.adaptive import hypergradient as hypergradient
from refinejax.learned.adaptive import plateau as plateau
from refinejax.learned.builders import ARCHITECTURES as ARCHITECTURES
from refinejax.learned.builders import DampingConfig as DampingConfig
from refinejax.learned.builders import RuleConfig as RuleConfig
from refinejax.learned.builders import UpdateConfig as UpdateConfig
from refinejax.learned.builders import builder as builder
from refinejax.learned.damping import LearnedDamping as LearnedDamping
from refinejax.learned.imitation import Imitation as Imitation
from refinejax.learned.maps import Relative as Relative
from refinejax.learned.rates import learned_rates as learned_rates
from refinejax.learned.rule import learned_rule as learned_rule
from refinejax.learned.rule_cells import LSTMRule as LSTMRule
from refinejax.learned.rule_cells import MLPRule as MLPRule
from refinejax.learned.rule_cells import RNNprop as RNNprop
from refinejax.learned.schedules import learned_schedule as learned_schedule
from refinejax.learned.schedules import schedule as schedule
from refinejax.learned.update import LearnedUpdate as LearnedUpdate
