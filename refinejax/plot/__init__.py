"""Figures of what a refinement did, made with matplotlib (the extra ``refinejax[plot]``).

Each function returns a ``matplotlib.figure.Figure`` on an Agg canvas. None touches pyplot: they
need no display, leave no figure open and change no setting. `png` gives the bytes of one.
"""

from refinejax.plot.experiments import deltas as deltas
from refinejax.plot.experiments import profiles as profiles
from refinejax.plot.experiments import progress as progress
from refinejax.plot.experiments import seed_scatter as seed_scatter
from refinejax.plot.fit import corner as corner
from refinejax.plot.fit import residuals as residuals
from refinejax.plot.outcome import before_after as before_after
from refinejax.plot.outcome import convergence as convergence
from refinejax.plot.rates import rates as rates
from refinejax.plot.status import GROUPS as GROUPS
from refinejax.plot.status import count_statuses as count_statuses
from refinejax.plot.status import group_of as group_of
from refinejax.plot.status import statuses as statuses
from refinejax.plot.style import BLUE as BLUE
from refinejax.plot.style import GRAY as GRAY
from refinejax.plot.style import INK as INK
from refinejax.plot.style import QUIET as QUIET
from refinejax.plot.style import WIDTH as WIDTH
from refinejax.plot.style import add_legend as add_legend
from refinejax.plot.style import add_title as add_title
from refinejax.plot.style import new_figure as new_figure
from refinejax.plot.style import png as png
from refinejax.plot.style import styled as styled
