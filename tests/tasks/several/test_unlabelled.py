"""Examples that nobody has labelled, in parts of several tasks: which are learnt, by whom they are answered, how often they
come."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from stilla import Term, data, tasks
from stilla.check.places import lacking_examples
from stilla.errors import DataError, RecipeError
from stilla.objectives import Labels
from stilla.recipe import Recipe
from stilla.recipe.code import code_in
from stilla.recipe.file import from_options
from stilla.signals import Side
from stilla.stages import opinions, unlabelled
from stilla.stages.learnt import examples_in
from stilla.stages.training import Learnt
from stilla.stages.unlabelled import MEASURED, Pool
from stilla.tasks.several.batching import parts_of
from stilla.tasks.several.mixture import Mixture
from stilla.tasks.several.several import Several
from tests.tasks.several import setting


def texts(file: Path, *lines: str) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(file)


def words(file: Path, *sentences: str) -> str:
    """Words with tags that are all wrong: nobody is to read them."""
    return texts(file, *(json.dumps({"tokens": one.split(), "tags": ["NAMED"] * len(one.split())}) for one in sentences))


class Made:
    """A task of two with unlabelled examples in one or both."""

    def __init__(self, folder: Path, topics: Any = None, tagged: Any = None, **changes: Any) -> None:
        plain = setting.recipe(folder, own={"words": setting.tagger(folder / "tagger")}, **changes)
        for name, pool in (("topics", topics), ("words", tagged)):
            if pool is not None:
                own = plain["data"]["parts"][name]["data"]
                plain["data"]["parts"][name]["data"] = {**own, "unlabelled": pool}
        plain["data"]["parts"]["topics"]["data"]["augment"] = "none"
        self.recipe = Recipe.model_validate(plain)
        self.splits = data.load(self.recipe.data, seed=0)
        bound = tasks.of_recipe(self.recipe, self.splits)
        self.teacher = bound.load(self.recipe.teacher, labelled=True)
        made = bound.adapted_to(self.teacher)
        assert isinstance(made, Several)
        self.task = made

    def pool(self) -> Pool | None:
        named = data.load_all_unlabelled(self.recipe.data, seed=self.recipe.seed)
        return unlabelled.of_run(self.recipe, self.task, self.splits, named)

    def examples(self) -> Dataset:
        return unlabelled.together(self.task, self.splits, self.pool())


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path, texts(tmp_path / "more.txt", "bread and salt", "old drum"),
                words(tmp_path / "more.jsonl", "a new song", "some old bread", "the team"))


@pytest.mark.slow
def test_every_tasks_pool_stands_behind_the_labelled_examples(made: Made) -> None:
    pool = made.pool()
    assert pool is not None
    assert {name: len(one) for name, one in pool.parts.items()} == {"topics": 2, "words": 3}
    whole = made.examples()
    assert len(whole) == 168 + 5
    assert data.are_unlabelled(whole).tolist() == [False] * 168 + [True] * 5
    own, rows = data.part_of(whole, "words")
    assert rows.tolist() == [*range(120, 168), 170, 171, 172]
    assert own[-1]["tokens"] == ["the", "team"]
    assert own[-1]["tags"] is None  # nobody has read what stands there
    assert data.are_unlabelled(own).tolist() == [False] * 48 + [True] * 3


@pytest.mark.slow
def test_without_any_there_is_no_pool(tmp_path: Path) -> None:
    plain = Made(tmp_path)
    assert plain.pool() is None
    assert plain.examples() is plain.splits["train"]


@pytest.mark.slow
def test_each_is_answered_by_its_own_teacher_and_its_label_is_not_counted(made: Made) -> None:
    examples = made.examples()
    prepared = made.task.prepare(examples, made.teacher.processor, made.teacher.processor, training=True)
    places = {int(key): place for place, key in enumerate(prepared.keys)}
    batch = prepared.collate([prepared.examples[places[key]] for key in (0, 168, 120, 172)])
    counts = made.task.counts(batch)
    assert (counts["topics/rows"], counts["topics/labelled"]) == (2, 1)
    assert counts["words/examples"] == 2
    assert counts["words/labelled"] == counts["words/words"] - 2  # "the team"
    with torch.no_grad():
        said = made.task.signals(made.teacher.model(**batch.teacher), batch, Side.TEACHER)
        for name, own in parts_of(batch).items():
            alone = made.task.part(made.teacher, name).model(**own.teacher)["logits"]
            assert torch.equal(said.parts[name].logits.logits, made.task.parts[name].signals(
                {"logits": alone}, own, Side.TEACHER).logits.logits)
    loss = made.task.terms([Term(Labels(), part="topics")])[0].objective
    assert loss.total(said, said, 0.0) == pytest.approx(float(torch.nn.functional.cross_entropy(
        said.parts["topics"].logits.logits[:1], said.parts["topics"].labels[:1], reduction="sum")))


@pytest.mark.slow
def test_what_is_measured_in_its_task_is_left_out_and_counted_by_it(tmp_path: Path) -> None:
    made = Made(tmp_path)
    measured = made.splits["test"]
    own, _ = data.part_of(measured, "topics")
    tagged, _ = data.part_of(measured, "words")
    both = Made(tmp_path, texts(tmp_path / "more.txt", own[0]["text"], "something else entirely"),
                words(tmp_path / "more.jsonl", " ".join(tagged[0]["tokens"]), "old bread is good", "the team"))
    pool = both.pool()
    assert pool is not None
    assert pool.left_out == {f"topics, {MEASURED}": 1, f"words, {MEASURED}": 1}
    assert pool.parts["topics"].data["text"][:] == ["something else entirely"]
    with pytest.raises(DataError, match=r"data\.parts\.topics\.data\.unlabelled: 1 of 2 examples .*refuse|overlap: skip"):
        Made(tmp_path, {"examples": str(tmp_path / "more.txt"), "overlap": "refuse"}).pool()


@pytest.mark.slow
def test_what_is_wrong_is_said_with_its_task(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.parts\.words\.data\.unlabelled: .*nowhere"):
        Made(tmp_path, tagged=str(tmp_path / "nowhere.jsonl")).pool()
    with pytest.raises(DataError, match=r"data\.parts\.words\.data\.unlabelled"):
        Made(tmp_path, tagged=texts(tmp_path / "columns.jsonl", json.dumps({"number": 1}))).pool()


@pytest.mark.slow
def test_filters_ask_the_tasks_own_teacher(tmp_path: Path) -> None:
    """Each keeps what a run of that task alone would keep."""
    lines = ["bread and salt", "old drum and song", "the team is good", "some water", "a new goal"]
    made = Made(tmp_path, {"examples": texts(tmp_path / "more.txt", *lines), "near": 0.7},
                {"examples": words(tmp_path / "more.jsonl", *lines), "max_entropy": 0.6})
    pool, kept = made.pool(), {}
    assert pool is not None
    for name, own in made.recipe.by_name.items():
        task, teacher = made.task.by_name[name], made.task.part(made.teacher, name)
        assert own.data.unlabelled is not None
        labelled = data.part_of(made.splits["train"], name)[0]
        folder = tmp_path / "asked" / name
        opinions.ask(own.data.unlabelled, task, teacher, pool.parts[name], labelled, folder, {}, 4)
        kept[name] = opinions.kept(own.data.unlabelled, task, pool.parts[name], folder, name)
    whole = Pool.of_parts(kept)
    assert len(whole) == sum(map(len, kept.values())) < 10
    assert sum(whole.left_out.values()) == 10 - len(whole)
    assert all(reason.startswith(("topics, ", "words, ")) for reason in whole.left_out)


def test_code_that_chooses_among_them_is_known_as_code(tmp_path: Path) -> None:
    plain = setting.recipe(tmp_path)
    own = plain["data"]["parts"]["topics"]["data"]
    plain["data"]["parts"]["topics"]["data"] = {**own, "unlabelled": {"examples": "x.txt", "keep": "mine:keep"}}
    assert [(one.place, one.what) for one in code_in(plain)] == [("data.parts.topics.data.unlabelled.keep", "mine:keep")]
    assert [one.what for one in code_in(Recipe.model_validate(plain))] == ["mine:keep"]


# --- how often they come ---


def test_places_of_an_epoch_are_of_one_kind_in_all_of_them() -> None:
    marks = np.array([False] * 30 + [True] * 90 + [False] * 12 + [True] * 4)
    mixture = Mixture((120, 16), 2.0, seed=3, unlabelled=marks)
    counts: Counter[int] = Counter()
    for epoch in range(60):
        mixture.set_epoch(epoch)
        assert np.array_equal(marks[mixture.chosen], mixture.unlabelled)
        counts.update(mixture.chosen.tolist())
    assert len(mixture.chosen) == 136
    for start, end in ((0, 30), (30, 120), (120, 132), (132, 136)):
        times = [counts[one] for one in range(start, end)]
        assert max(times) - min(times) <= 1
    first, second = mixture.quotas
    assert int((~mixture.unlabelled[:first]).sum()) == pytest.approx(first / 4, abs=1)
    assert int((~mixture.unlabelled[first:]).sum()) == pytest.approx(second * 12 / 16, abs=1)


def test_a_kind_of_which_an_epoch_takes_none_never_comes() -> None:
    mixture = Mixture((2, 1000), 1.0, seed=0, unlabelled=np.array([True, False] + [False] * 1000))
    assert len(mixture.chosen) == 1002
    cramped = Mixture((500, 2), 1.0, seed=0)
    assert cramped.seen(1, unlabelled=True) == 0


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_examples_are_counted_as_they_have_come(tmp_path: Path, temperature: float) -> None:
    lines = [f"bread and {one}" for one in range(30)]
    made = Made(tmp_path, texts(tmp_path / "more.txt", *lines))
    task = Several(made.task.parts, made.task.section.model_copy(update={"temperature": temperature}), made.task.start)
    examples = made.examples()
    marks = data.are_unlabelled(examples)
    prepared = task.prepare(examples, made.teacher.processor, made.teacher.processor, training=True, seed=1)
    if prepared.unlabelled is None:
        assert temperature == 1
        return  # every epoch has all of them, and a place of the epoch is an example
    drawn, places = set[int](), prepared.unlabelled
    for epoch in range(3):
        prepared.on_epoch(epoch)
        mixture = prepared.examples.mixture
        assert np.array_equal(marks[prepared.keys[mixture.chosen]], places)
        drawn |= set(mixture.chosen.tolist())
        seen = examples_in(prepared, marks, Learnt(9, int((~places).sum()), int(places.sum()), epochs=epoch + 1))
        keys = prepared.keys[sorted(drawn)]
        assert seen["labelled"] == (~marks[keys]).sum()
        assert seen["unlabelled"] == marks[keys].sum()
    assert seen["unlabelled"] == 30


# --- without any labels ---


@pytest.mark.slow
def test_a_task_without_labels_learns_from_its_teacher_alone(tmp_path: Path) -> None:
    made = Made(tmp_path)
    plain = made.recipe.model_dump(mode="json")
    own = plain["data"]["parts"]["topics"]["data"]
    plain["data"]["parts"]["topics"]["data"] = {
        "validation": own["validation"], "test": own["test"], "label": "topic", "text": "text",
        "unlabelled": texts(tmp_path / "more.txt", "bread and salt", "old drum")}
    recipe = Recipe.model_validate(plain)
    splits = data.load(recipe.data, seed=0)
    assert {split: len(one) for split, one in splits.items()} == {"train": 48, "validation": 64, "test": 84}
    task = tasks.of_recipe(recipe, splits)
    assert [(one.part, one.kind, one.weight(0)) for one in task.learns_by() or ()] == [
        ("topics", "logits", 1.0), ("words", "labels", 0.3), ("words", "logits", 0.7)]
    pool = unlabelled.of_run(recipe, task, splits, data.load_all_unlabelled(recipe.data, seed=0))
    whole = unlabelled.together(task, splits, pool)
    assert data.are_unlabelled(whole).tolist() == [False] * 48 + [True] * 2
    assert "evaluate.baseline: there are no labelled training data (data.parts.topics.data.train) that" in "\n".join(
        lacking_examples(recipe))


def test_what_asks_for_labels_or_a_pool_that_are_not_there_is_named() -> None:
    parts = {"a": {"task": "text-classification", "data": "a.csv"},
             "b": {"task": "text-classification", "data": {"unlabelled": {"examples": "b.txt", "near": 0.9},
                                                           "validation": "v.csv"}}}
    said = {"task": "several", "teacher": "./bert", "student": 3, "output": "runs/x"}
    found = lacking_examples(from_options({**said, "data": {"parts": parts}}))
    assert found == ["data.parts.b.data.unlabelled.near: there are no labelled training data (data.parts.b.data.train) that "
                     "anything could be near to; leave it out"]
    alone = lacking_examples(from_options({**said, "data": {"parts": {"a": parts["a"]}}, "distill": {"unlabelled": 0.5}}))
    assert alone == ["distill.unlabelled: a share of data.unlabelled, and there is none; name files or folders there, or "
                     "leave it out"]
    generate = {"task": "text-classification", "data": {"train": "a.csv", "unlabelled": {"generate": {"model": "./lm"}}}}
    with pytest.raises(RecipeError, match=r"parts\.a\.data: got unlabelled\.generate; texts are generated in a run of one"):
        from_options({**said, "data": {"parts": {"a": generate}}})
