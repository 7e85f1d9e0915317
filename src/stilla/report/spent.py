"""What every training of a run took, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from stilla.report import numbers
from stilla.scores import Scores

_COLUMNS: Sequence[tuple[str, str, Callable[[float], str]]] = (
    ("seconds", "by the clock", numbers.duration), ("processor_seconds", "of the processor", numbers.duration),
    ("flops", "FLOPs", numbers.count), ("joules", "energy", numbers.joules))


def spent_heads(scores: Scores) -> list[str]:
    return [title for _, title, _ in _known(scores)]


def spent_lines(scores: Scores) -> list[tuple[str, list[str]]]:
    """By training, the texts of its cells; a dash where nobody knows it."""
    return [(stage, [_cell(one, name, write) for name, _, write in _known(scores)]) for stage, one in scores.spent.items()]


def _known(scores: Scores) -> list[tuple[str, str, Callable[[float], str]]]:
    """The columns in which something stands."""
    return [column for column in _COLUMNS if any(column[0] in one for one in scores.spent.values())]


def _cell(taken: Mapping[str, float], name: str, write: Callable[[float], str]) -> str:
    return write(taken[name]) if name in taken else "–"
