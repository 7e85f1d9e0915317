"""The table of a search."""

from __future__ import annotations

import pytest

from stilla.report.searched import titles


@pytest.mark.parametrize(("paths", "expected"), [
    (["distill.objectives.1.temperature", "student.layers"], ["temperature", "layers"]),
    (["distill.objectives.0.weight", "distill.objectives.1.weight"], ["0.weight", "1.weight"]),
    (["teacher.train.epochs", "distill.epochs", "distill.0.epochs"], ["train.epochs", "distill.epochs", "0.epochs"]),
    (["seed", "a.seed"], ["seed", "a.seed"]),
    ([], []),
])
def test_a_field_is_called_by_as_little_as_tells_it_apart(paths: list[str], expected: list[str]) -> None:
    assert titles(paths) == expected
    assert len(set(titles(paths))) == len(paths)
