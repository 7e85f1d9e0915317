"""Several runs that belong together: what they make alike is made once, and one page shows them all."""

from stilla.series.searching import Searched, search

__all__ = ["Searched", "search"]
