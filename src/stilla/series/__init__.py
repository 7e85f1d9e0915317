"""Several runs that belong together: what they make alike is made once, and one page shows them all."""

from stilla.series.label_curve import Curve, curve
from stilla.series.searching import Searched, search

__all__ = ["Curve", "Searched", "curve", "search"]
