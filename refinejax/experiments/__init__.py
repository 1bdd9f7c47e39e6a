"""Controlled experiments: records, paired comparison with verdicts, and a log.

A comparison is paired by seed, its metric, margin and guards are named beforehand, and its verdict
follows from an interval; groups that cannot be compared are refused. This package needs NumPy,
SciPy and filelock only. `refinejax.experiments.detection` has exact metrics of anomaly score maps.
"""

from refinejax.experiments.checks import RefusedError as RefusedError
from refinejax.experiments.comparing import compare as compare
from refinejax.experiments.comparison import Comparison as Comparison
from refinejax.experiments.hashing import code_revision as code_revision
from refinejax.experiments.hashing import hash_arrays as hash_arrays
from refinejax.experiments.hashing import hash_config as hash_config
from refinejax.experiments.hashing import hash_files as hash_files
from refinejax.experiments.intervals import bca_interval as bca_interval
from refinejax.experiments.intervals import probability_better as probability_better
from refinejax.experiments.intervals import sign_flip as sign_flip
from refinejax.experiments.intervals import t_interval as t_interval
from refinejax.experiments.judge import decide as decide
from refinejax.experiments.judge import judge as judge
from refinejax.experiments.log import Log as Log
from refinejax.experiments.log import Records as Records
from refinejax.experiments.log_markdown import markdown as markdown
from refinejax.experiments.log_markdown import progress_table as progress_table
from refinejax.experiments.log_markdown import write_markdown as write_markdown
from refinejax.experiments.looks import holm as holm
from refinejax.experiments.looks import look_levels as look_levels
from refinejax.experiments.plans import Assumption as Assumption
from refinejax.experiments.plans import Decision as Decision
from refinejax.experiments.plans import Experiment as Experiment
from refinejax.experiments.runs import Group as Group
from refinejax.experiments.runs import Run as Run
from refinejax.experiments.sample_size import detectable_effect as detectable_effect
from refinejax.experiments.sample_size import power as power
from refinejax.experiments.sample_size import seeds_to_decide as seeds_to_decide
from refinejax.experiments.screening import rank_agreement as rank_agreement
from refinejax.experiments.screening import screening as screening
from refinejax.experiments.seeds import train_seeds as train_seeds
from refinejax.experiments.tasks import compare_tasks as compare_tasks
from refinejax.experiments.tasks import interquartile_mean as interquartile_mean
from refinejax.experiments.tasks import performance_profile as performance_profile
from refinejax.experiments.tasks import profile_interval as profile_interval
from refinejax.experiments.tasks import stratified_interval as stratified_interval
from refinejax.experiments.verdict import Verdict as Verdict
