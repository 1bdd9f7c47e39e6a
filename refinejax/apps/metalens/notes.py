"""What the result of an inversion does not know, in words."""

import numpy as np

from refinejax.batch import BatchResult

NOTE_SCALE = (
    "wavelength unknown: scaling all five params together changes nothing that can be seen, so "
    "only their ratios are determined; give the wavelength to determine the rest"
)
NOTE_RUNG = (
    "{} of {} samples: lenses a whole number of fringes off explain the map about as well (odds "
    "below 20 : 1, margins['rung'] below 3); their params may be further off than std says"
)
NOTE_LINE = (
    "{} of {} samples: the lens, scaled, explains the map about as well at another line (odds "
    "below 20 : 1, margins['line'] below 3); of lines that explain it equally, the one that brings "
    "the params nearest to {} is given"
)
NOTE_START = (
    "no initial params: started from the middle of the ranges, where few samples are solved"
)


def undecided_notes(result: BatchResult, *, given: bool) -> list[str]:
    """Return notes on choices that the maps do not decide.

    Args:
        result: the fits.
        given: whether the starts are the user's.
    """
    found = []
    near = "the start" if given else "the middle of the ranges"
    for choice, note in (("rung", NOTE_RUNG), ("line", NOTE_LINE)):
        if choice in result.margins and (number := int(np.sum(result.undecided(choice)))):
            found.append(note.format(number, len(result), near))
    return found
