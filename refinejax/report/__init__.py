"""A report of a refinement: one HTML page that needs no other file, and its figures as PNG files.

`write_report` makes both of any `BatchResult`. An application says how to present its results by a
`Presentation`: names and units, a measure of the fit, a picture of a sample, sections of its own.
Figures need matplotlib, the extra ``refinejax[plot]``.
"""

from refinejax.report.numbers import number as number
from refinejax.report.page import write_report as write_report
from refinejax.report.parts import Picture as Picture
from refinejax.report.parts import Section as Section
from refinejax.report.parts import code_to_html as code_to_html
from refinejax.report.parts import paragraph as paragraph
from refinejax.report.parts import table as table
from refinejax.report.presentation import Measure as Measure
from refinejax.report.presentation import Presentation as Presentation
from refinejax.report.samples import choose_samples as choose_samples

__all__ = [
    "Measure",
    "Picture",
    "Presentation",
    "Section",
    "choose_samples",
    "code_to_html",
    "number",
    "paragraph",
    "table",
    "write_report",
]
