"""Of several forms of an example the hardest is taken, by an oracle; whoever asks, and without another number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.evaluate.asking import directly
from stilla.recipe import Recipe, Stage
from stilla.signals import Batch, Dense, Signals
from stilla.stages import hardest as of_recipes
from stilla.stages.cache_choice import looks_of
from stilla.tasks.base import Prepared
from stilla.tasks.shared.classification import Positions
from stilla.tasks.shared.problem import Problem
from stilla.tasks.text.perturbation import Draws
from stilla.tasks.text.text_classification import TextClassification
from stilla.tasks.turns import Turns
from stilla.tasks.vision.fresh import View
from stilla.tasks.vision.sections import Augment
from stilla.training import hardest as module
from stilla.training.hardest import Hardest

EXAMPLES, FORMS, CLASSES = 7, 4, 3
TASK = TextClassification(Problem("class", ("label",), ("a", "b", "c")), None, ("text",))


class Told(nn.Module):
    """A model that says of each form of each example what stands in a table."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table.clone())
        self.asked: list[list[int]] = []

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        assert not self.training
        self.asked.append(input_ids[:, 0].tolist())
        return {"logits": self.table[input_ids[:, 0], input_ids[:, 1]]}


def tables(*shape: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=draw), torch.randn(*shape, generator=draw)


def prepared(turns: Turns, labels: Tensor | None = None) -> Prepared:
    """Examples with keys of their own, whose only input is who they are and in which form they come."""
    keys = 3 * np.arange(EXAMPLES)

    def collate(places: Sequence[int]) -> Batch:
        forms = torch.tensor([[place, sum(turns.of(int(keys[place]))[1:])] for place in places])
        given = {} if labels is None else {"labels": labels[forms[:, 0], forms[:, 1]]}
        return Batch(student={"input_ids": forms}, teacher={"input_ids": forms}, keys=torch.from_numpy(keys[places]), **given)

    return Prepared(Positions(EXAMPLES), collate, keys, on_epoch=turns.set_epoch, turns=(turns,))


def choosing(
    student: Tensor, teacher: Tensor, *, many: int = FORMS, turns: Turns | None = None, labels: Tensor | None = None,
    task: Any = TASK, resumed: Path | None = None, folder: Path | None = None, process: tuple[int, int] = (0, 1),
) -> tuple[Hardest, Told]:
    model, other = Told(student).train(), Told(teacher).eval()

    def tell(batch: Batch) -> Signals:
        return Signals(Dense(task._rows(other(**batch.teacher)["logits"])))

    made = Hardest(many, prepared(turns or Turns(), labels), task, model, tell, directly)
    made.resumed = resumed
    args = SimpleNamespace(eval_batch_size=2, process_index=process[0], world_size=process[1], bf16=False,
                           device=torch.device("cpu"), output_dir=str(folder))
    made.on_train_begin(args, SimpleNamespace(global_step=5), None)  # type: ignore[arg-type]
    return made, model


def shown(made: Hardest) -> list[int]:
    batch = made.prepared.collate(range(EXAMPLES))
    return [int(form) for form in batch.student["input_ids"][:, 1]]


def kl(teacher: Tensor, student: Tensor) -> np.ndarray[Any, Any]:
    """By its definition, in NumPy."""
    p, q = (np.exp(one.double().numpy()) for one in (teacher, student))
    p, q = (one / one.sum(-1, keepdims=True) for one in (p, q))
    return np.asarray((p * np.log(p / q)).sum(-1))


def test_every_example_takes_the_form_in_which_the_student_is_furthest_from_its_teacher() -> None:
    student, teacher = tables(EXAMPLES, FORMS, CLASSES)
    made, model = choosing(student, teacher)
    made.set_epoch(0)
    expected = kl(teacher, student).argmax(1).tolist()
    assert len(set(expected)) > 2
    assert shown(made) == expected
    assert model.training  # as it was
    assert made.entered == 2 * EXAMPLES * FORMS
    fewer, _ = choosing(student, teacher, many=2)
    fewer.set_epoch(0)
    assert shown(fewer) == kl(teacher, student)[:, :2].argmax(1).tolist()


def test_a_student_that_says_what_its_teacher_says_takes_the_first_forms() -> None:
    student, _ = tables(EXAMPLES, FORMS, CLASSES)
    made, _ = choosing(student, student.clone())
    made.set_epoch(0)
    assert shown(made) == [0] * EXAMPLES


def test_of_several_labels_the_sum_over_all_counts() -> None:
    student, teacher = tables(EXAMPLES, FORMS, 2)
    several = TextClassification(Problem("columns", ("label",), ("a", "b")), None, ("text",))
    made, _ = choosing(student, teacher, task=several)
    made.set_epoch(0)
    pairs = [torch.stack([torch.zeros_like(one), one], -1) for one in (teacher, student)]
    assert shown(made) == kl(*pairs).sum(-1).argmax(1).tolist()


def test_a_form_that_keeps_another_number_of_labels_than_the_first_is_not_taken() -> None:
    student, teacher = tables(EXAMPLES, FORMS, CLASSES)
    draw = torch.Generator().manual_seed(1)
    labels = torch.where(torch.rand(EXAMPLES, FORMS, generator=draw) < 0.5, -100, 1)
    made, _ = choosing(student, teacher, labels=labels)
    made.set_epoch(0)
    agreeing = (labels == labels[:, :1]).numpy()
    expected = np.where(agreeing, kl(teacher, student), -1).argmax(1).tolist()
    assert shown(made) == expected != kl(teacher, student).argmax(1).tolist()


def test_processes_ask_about_a_share_each_and_choose_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = tables(EXAMPLES, FORMS, CLASSES)
    alone, _ = choosing(student, teacher)
    alone.set_epoch(0)
    others: list[Any] = [[], [], []]
    for last in (False, True):
        for process in range(3):
            told: list[Any] = []

            def gather(mine: Any, world: int, own: int = process, told: list[Any] = told, known: bool = last) -> list[Any]:
                found = [others[one][len(told)] if known and one != own else mine for one in range(world)]
                told.append(mine)
                return found

            monkeypatch.setattr(module, "_gathered", gather)
            made, model = choosing(student, teacher, process=(process, 3))
            made.set_epoch(0)
            others[process] = told
            assert len(model.asked) == 2 * FORMS  # four batches, of which each asks two: one of them twice
    assert shown(made) == shown(alone)


def test_it_asks_as_a_pass_begins_and_the_student_as_it_is_then() -> None:
    student, teacher = tables(EXAMPLES, FORMS, CLASSES)
    made, model = choosing(student, teacher, turns=Turns(untouched=1))
    made.set_epoch(0)
    assert not model.asked
    assert shown(made) == [0] * EXAMPLES
    made.set_epoch(1)
    asked = len(model.asked)
    before = shown(made)
    made.set_epoch(1)  # a loader that skips what was learnt says so twice
    assert len(model.asked) == asked
    assert shown(made) == before
    with torch.no_grad():
        model.table.copy_(student.flip(1))
    made.set_epoch(2)
    assert shown(made) == kl(teacher, student.flip(1)).argmax(1).tolist() != before


def test_one_candidate_is_none_and_nobody_is_asked() -> None:
    made, model = choosing(*tables(EXAMPLES, FORMS, CLASSES), many=1)
    made.set_epoch(0)
    assert shown(made) == [0] * EXAMPLES
    assert not model.asked


def test_a_checkpoint_holds_what_was_chosen(tmp_path: Path) -> None:
    student, teacher = tables(EXAMPLES, FORMS, CLASSES)
    first, _ = choosing(student, teacher, folder=tmp_path)
    first.set_epoch(3)
    (checkpoint := tmp_path / "checkpoint-5").mkdir()
    state = SimpleNamespace(global_step=5, is_world_process_zero=True)
    first.on_save(SimpleNamespace(output_dir=str(tmp_path)), state, None)  # type: ignore[arg-type]
    second, model = choosing(student.flip(1), teacher, resumed=checkpoint)  # the student has moved on
    second.set_epoch(3)
    assert shown(second) == shown(first)
    assert not model.asked
    second.set_epoch(4)
    assert model.asked
    with pytest.raises(CompatibilityError, match="with 4 candidates each, and here are 7 with 2: begin anew"):
        choosing(student, teacher, resumed=checkpoint, many=2)
    (checkpoint / "hardest.safetensors").unlink()
    with pytest.raises(CompatibilityError, match="begun without `hardest`"):
        choosing(student, teacher, resumed=checkpoint)


def test_candidates_of_a_text_differ_in_what_is_drawn_and_not_in_whether() -> None:
    keys, drawn = np.arange(40), []
    for candidate in range(3):
        draws = Draws(seed=5, untouched=1)
        draws.turns.choose(keys, np.full(40, candidate))
        assert draws.of(0) is None
        draws.turns.set_epoch(2)
        found = [draws.of(int(key)) for key in keys]
        drawn.append([None if one is None else one.integers(10**9) for one in found])
    unchanged = [[one is None for one in some] for some in drawn]
    assert unchanged[0] == unchanged[1] == unchanged[2]
    assert 0 < sum(unchanged[0]) < 40
    assert all(len({*three}) == 3 for three in zip(*drawn, strict=True) if None not in three)
    plain = Draws(seed=5, untouched=1)
    plain.turns.set_epoch(2)
    assert [None if (one := plain.of(int(key))) is None else one.integers(10**9) for key in keys] == drawn[0]


def test_candidates_of_a_picture_differ_in_what_is_drawn_and_not_in_how_they_are_mixed() -> None:
    how = Augment(mixup=0.3, cutmix=0.3)
    for key in range(30):
        mixes = [View(how, 1, 2, key, candidate).mix(key, 50) for candidate in range(4)]
        kinds = {None if one is None else one.share is None for one in mixes}
        assert len(kinds) == 1
        assert kinds == {None} or len({one.partner for one in mixes if one is not None}) > 1


def test_candidates_of_views_that_are_drawn_once_are_the_views_that_follow() -> None:
    turns = Turns(views=3, untouched=2)
    assert turns.cycle == 5
    for chosen in (0, 1, 2):
        turns.choose(np.array([4]), np.array([chosen]))
        found = []
        for epoch in range(9):
            turns.set_epoch(epoch)
            found.append(turns.of(4))
        assert found == [(0, 0), (1, 0), *((2 + (place + chosen) % 3, 0) for place in range(7))]
        assert turns.of(9) == turns.of(3) == (2, 0)  # of whom nothing was chosen


RECIPE = {"task": "text-classification", "data": {"train": "a.csv", "augment": "light"}, "teacher": {"model": "m"},
          "student": {"layers": 1}, "output": "out",
          "distill": {"hardest": 3, "objectives": [{"kind": "logits"}]}}
API = {"teacher": {"model": "m", "api": {"url": "https://a.test/v1"}}, "student": {"model": "s"}}


@pytest.mark.parametrize(("recipe", "turns", "task", "words"), [
    ({}, (Turns(),), TASK, None),
    ({}, (Turns(views=3),), TASK, None),
    ({}, (), TASK, "examples that change at random, and these do not"),
    ({}, (Turns(views=2),), TASK, "got 3, and there are 2 forms of each example (data.views)"),
    ({"distill": {"hardest": 3, "objectives": [{"kind": "labels"}]}}, (Turns(),), TASK, "no objective here asks it anything"),
    ({}, (Turns(),), TextClassification(Problem("number", ("n",), ()), None, ("text",)), "these answers are numbers"),
    ({"cache": {"form": "top_k"}}, (Turns(views=3),), TASK, "cache.form: top_k stores a part of each"),
    (API, (Turns(),), TASK, "teacher.api"),
])
def test_where_nothing_can_be_chosen_a_recipe_is_told_why(recipe: Any, turns: Any, task: Any, words: str | None) -> None:
    made = Recipe.model_validate({**RECIPE, **recipe})
    data = Prepared(Positions(1), lambda places: Batch(student={}, teacher={}), np.arange(1), turns=turns)
    found = of_recipes.problems(made, made.cache, task, data)
    if words is None:
        assert found == []
    else:
        (problem,) = found
        assert problem.startswith("distill.hardest: ")
        assert words in problem


def test_both_models_look_at_all_forms_in_every_pass_that_changes_something() -> None:
    data = Prepared(Positions(1), lambda places: Batch(student={}, teacher={}), np.arange(1), turns=(Turns(untouched=2),))
    assert looks_of(Stage(epochs=4.5, hardest=3), data, 100) == 3 * 3  # of the half pass too
    assert looks_of(Stage(max_steps=30, batch_size=10, hardest=3), data, 100) == 3
    assert looks_of(Stage(epochs=1, hardest=3), data, 100) == 0
    assert looks_of(Stage(epochs=4), data, 100) == 0
    assert looks_of(Stage(epochs=4.5, hardest=3, extend=2), data, 100) == 3 * 7
    assert looks_of(Stage(epochs=4.5, hardest=3, extend=2), data, 100, goes_on=False) == 3 * 3


def test_a_recipe_of_one_form_has_nothing_to_choose() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        Recipe.model_validate({**RECIPE, "distill": {"hardest": 1}})
