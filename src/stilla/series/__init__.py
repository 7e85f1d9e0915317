"""Several runs that belong together: what they make alike is made once, and one page shows them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stilla.series.label_curve import Curve, curve

if TYPE_CHECKING:
    from stilla.series.searching import Searched, search

__all__ = ["Curve", "Searched", "curve", "search"]


def __getattr__(name: str) -> Any:
    """What searches, when it is asked for: it needs optuna, and a curve does not."""
    if name in ("Searched", "search"):
        from stilla.series import searching

        return getattr(searching, name)
    raise AttributeError(name)
