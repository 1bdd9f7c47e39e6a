"""Pytrees on disk, by Orbax: the states of a training, and folders of weights.

Only arrays, numbers and JSON are written, with a SHA-256 of each file; nothing is pickled.
"""

from refinejax.checkpoint.states import Checkpoints as Checkpoints
from refinejax.checkpoint.states import Saved as Saved
from refinejax.checkpoint.trees import load_card as load_card
from refinejax.checkpoint.trees import load_tree as load_tree
from refinejax.checkpoint.trees import save_tree as save_tree
