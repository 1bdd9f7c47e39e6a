"""The public names of this application."""

from refinejax.apps.metalens.lenses import predict as predict
from refinejax.apps.metalens.lenses import residual_rmse as residual_rmse
from refinejax.apps.metalens.lenses import simulate as simulate
from refinejax.apps.metalens.lenses import space as space
from refinejax.apps.metalens.solve import invert as invert
from refinejax.apps.metalens.solve import predict_lenses as predict_lenses
from refinejax.apps.metalens.solve import starts as starts
from refinejax.apps.metalens.tasks import LensTasks as LensTasks

__all__ = [
    "LensTasks",
    "invert",
    "predict",
    "predict_lenses",
    "residual_rmse",
    "simulate",
    "space",
    "starts",
]
