"""Neural networks (flax.nnx), held as pytrees, and predictors of params made of them."""

from refinejax.networks.architectures import ARCHITECTURES as ARCHITECTURES
from refinejax.networks.network import Network as Network
from refinejax.networks.predictor import Prediction as Prediction
from refinejax.networks.predictor import Predictor as Predictor
