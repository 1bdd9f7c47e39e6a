"""Exact metrics of anomaly detection: areas under curves, with every score as a threshold.

Scores are compared with one another and never with a grid of thresholds: the metrics do not change
under a monotone map of the scores or with the order of the images, and equal scores count together.
With a grid that is linear in the score, one hot pixel moves every other pixel into its first cell,
and the metric is then its floor: 0.15 for AU-PRO up to a false-positive rate of 0.3.

A metric that is undefined (no defect, or no good pixel) raises an error; it is never 0.
"""

from refinejax.experiments.detection.curves import DetectionCurve as DetectionCurve
from refinejax.experiments.detection.metrics import au_pro as au_pro
from refinejax.experiments.detection.metrics import au_spro as au_spro
from refinejax.experiments.detection.metrics import image_auroc as image_auroc
from refinejax.experiments.detection.metrics import pixel_auroc as pixel_auroc
from refinejax.experiments.detection.metrics import pro_curve as pro_curve
from refinejax.experiments.detection.metrics import roc_curve as roc_curve
from refinejax.experiments.detection.metrics import spro_curve as spro_curve
from refinejax.experiments.detection.pixels import Region as Region
