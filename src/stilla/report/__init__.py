"""What runs found, for people: `table` (the numbers as text), `page` (report.html), `comparison` (of runs).

Nothing here imports torch. `table` needs only the standard library, so the pages are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stilla.report.comparison import write_comparison as write_comparison
    from stilla.report.page import write_report as write_report

__all__ = ["write_comparison", "write_report"]


def __getattr__(name: str) -> Any:
    if name == "write_report":
        from stilla.report.page import write_report

        return write_report
    if name == "write_comparison":
        from stilla.report.comparison import write_comparison

        return write_comparison
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
