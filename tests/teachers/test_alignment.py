"""A cache that is shifted by one row is found before it teaches anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stilla.errors import CacheError
from stilla.signals import Batch, Dense, Dims, Signals
from stilla.tasks.language.causal_lm import CausalLM
from stilla.teachers import CachedTeacher, CapturingTeacher, Keep
from tests.teachers.speakers import VOCABULARY, language_batch


class Knowing:
    """Gives the label of the row `shift` rows on most of its mass."""

    def __init__(self, shift: int = 0, certainty: float = 6.0) -> None:
        self.task = CausalLM(classes=VOCABULARY)
        self.shift, self.certainty = shift, certainty

    def __call__(self, batch: Batch) -> Signals:
        labels = batch.labels[batch.labels != -100]
        logits = torch.randn(len(labels), VOCABULARY, generator=torch.Generator().manual_seed(0))
        logits[torch.arange(len(labels)), labels.roll(-self.shift)] += self.certainty
        return Signals(logits=Dense(logits), labels=labels)

    def to(self, device: Any) -> None:
        pass

    def dims(self, batch: Batch | None = None) -> Dims:
        return Dims(VOCABULARY)


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return language_batch(*torch.randint(3, VOCABULARY, (6, 20), generator=generator).tolist())


@pytest.mark.parametrize("form", ["dense", "top_k", "samples"])
@pytest.mark.parametrize(("shift", "words"), [(1, "one row later"), (-1, "one row earlier")])
def test_shifted_answers_are_refused(form: Any, shift: int, words: str, tmp_path: Path) -> None:
    teacher = Knowing(shift)
    capturing = CapturingTeacher(teacher, teacher.task, tmp_path, Keep(form, k=10), {})
    capturing(batch())
    capturing.close()
    with pytest.raises(CacheError, match=f"and those {words} with .*: they are shifted"):
        CachedTeacher(tmp_path, teacher.task)(batch())


@pytest.mark.parametrize("form", ["dense", "top_k", "samples"])
def test_answers_in_their_place_are_taken(form: Any, tmp_path: Path) -> None:
    teacher = Knowing()
    capturing = CapturingTeacher(teacher, teacher.task, tmp_path, Keep(form, k=10), {}, check_alignment=True)
    capturing(batch())
    capturing.close()
    assert len(CachedTeacher(tmp_path, teacher.task)(batch()).logits) == 6 * 19


def test_a_teacher_that_has_learnt_nothing_is_refused_unless_it_is_trusted(tmp_path: Path) -> None:
    teacher = Knowing(certainty=0.0)
    capturing = CapturingTeacher(teacher, teacher.task, tmp_path, Keep("dense"), {})
    capturing(batch())
    capturing.close()
    with pytest.raises(CacheError, match="--allow-weak-teacher"):
        CachedTeacher(tmp_path, teacher.task)(batch())
    CachedTeacher(tmp_path, teacher.task, check_alignment=False)(batch())


def test_texts_that_repeat_themselves_say_nothing_about_a_shift(tmp_path: Path) -> None:
    teacher = Knowing()
    same = language_batch(*[[5] * 12 + [7] * 8 for _ in range(6)])
    capturing = CapturingTeacher(teacher, teacher.task, tmp_path, Keep("dense"), {})
    capturing(same)
    capturing.close()
    assert len(CachedTeacher(tmp_path, teacher.task)(same).logits) == 6 * 19
