"""The loop by which everything is trained, and its settings."""

from refinejax.training.config import TrainingConfig as TrainingConfig
from refinejax.training.loop import train as train
from refinejax.training.plans import TrainingPlan as TrainingPlan
from refinejax.training.plans import train_model as train_model
from refinejax.training.result import Trained as Trained
from refinejax.training.task import TrainingTask as TrainingTask
