"""Pytrees on disk (Orbax): states of a training that can be killed, and folders of weights.

Everything written is arrays, numbers and JSON, with a SHA-256 of each file; never a pickle.
"""

from refinejax.checkpoint.states import Checkpoints as Checkpoints
from refinejax.checkpoint.states import Saved as Saved
from refinejax.checkpoint.trees import load_card as load_card
from refinejax.checkpoint.trees import load_tree as load_tree
from refinejax.checkpoint.trees import save_tree as save_tree
