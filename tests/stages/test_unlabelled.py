"""Which unlabelled examples a run learns from: what is measured, what the teacher thinks, what the recipe asks for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset

from stilla.data.overlap import WORDS, words
from stilla.errors import DataError, RecipeError
from stilla.models.features import Recorder
from stilla.recipe import Recipe, Unlabelled
from stilla.recipe.file import from_options
from stilla.stages import completions, learnt, opinions, unlabelled
from stilla.stages.learnt import examples_in
from stilla.stages.training import Learnt
from stilla.stages.unlabelled import MEASURED, Pool
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from tests.equivalence.unlabelled import made
from tests.report.fakes import regression

LONG = "one two three four five six seven eight nine"


def recipe(**section: Any) -> Recipe:
    return from_options({"task": "text-classification", "teacher": "./t", "student": 1,
                         "data": {"train": "x", "unlabelled": {"examples": "pool", **section}}})


def splits(**others: list[str]) -> dict[str, Dataset]:
    return {name: Dataset.from_dict({"text": texts, "label": (["a", "b"] * len(texts))[: len(texts)]})
            for name, texts in {"train": ["good", "bad"], **others}.items()}


def read(texts: list[str], given: dict[str, Dataset], **section: Any) -> Pool:
    task = TextClassification.understand(TextClassificationData(train="x"), given)
    found = unlabelled.read(recipe(**section), task, given, {"pool": Dataset.from_dict({"text": texts})})
    assert found is not None
    return found


# --- what is measured is not learnt ---


def test_what_stands_in_validation_or_test_data_is_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    given = splits(validation=["Yes, indeed!", LONG], test=["no no", f"ten {LONG}"])
    found = read(["yes indeed", f"zero {LONG} ten", "good", "no", "new"], given)
    assert found.data["text"][:] == ["good", "no", "new"]  # what stands in the training data may be learnt
    assert found.left_out == {MEASURED: 2}
    assert "2 of 5 examples stand in validation or test data" in caplog.text
    with pytest.raises(DataError, match=r"2 of 5 examples .* the first is row 0\. Remove them, or .*overlap: skip"):
        read(["yes indeed", LONG, "good", "no", "new"], given, overlap="refuse")
    with pytest.raises(DataError, match=r"all 1 examples are left out \(1 in validation or test data\)"):
        read(["yes indeed"], given)


def test_no_eight_words_of_the_test_data_are_left_in_the_pool() -> None:
    draw = np.random.default_rng(0)

    def some(count: int) -> list[str]:
        return [" ".join(draw.choice(["a", "b", "c", "d", "e"], draw.integers(1, 60))) for _ in range(count)]

    def runs(texts: list[str]) -> set[tuple[str, ...]]:
        found = [words(text) for text in texts]
        return {tuple(one[start : start + WORDS]) for one in found for start in range(len(one) - WORDS + 1)}

    given = splits(validation=some(20), test=some(20))
    kept = read(some(400), given).data["text"][:]
    measured = given["validation"]["text"][:] + given["test"]["text"][:]
    assert 0 < len(kept) < 400
    assert not runs(kept) & runs(measured)
    assert not {" ".join(words(text)) for text in kept} & {" ".join(words(text)) for text in measured}


def test_several_files_are_one_pool_and_a_limit_draws_from_all_of_it() -> None:
    given = splits(validation=["v", "w"])
    task = TextClassification.understand(TextClassificationData(train="x"), given)
    named = {"a": Dataset.from_dict({"text": list("cdefg")}),
             "b": Dataset.from_dict({"body": list("hijkl"), "label": [1] * 5})}
    whole = unlabelled.read(recipe(), task, given, named)
    few = unlabelled.read(recipe(limit=6), task, given, named)
    assert whole is not None
    assert few is not None
    assert whole.data["text"][:] == list("cdefghijkl")
    assert len(few) == 6
    assert set(few.data["text"]) & set("hijkl")
    assert unlabelled.read(from_options({"task": "text-classification", "data": "x", "teacher": "t", "student": 1}),
                           task, given, {}) is None


def test_what_is_wrong_with_each_of_several_files_is_said_with_its_name() -> None:
    given = splits(validation=["v", "w"])
    task = TextClassification.understand(TextClassificationData(train="x"), given)
    named = {"a.csv": Dataset.from_dict({"p": ["c"], "q": ["d"]}), "b.csv": Dataset.from_dict({"number": [1]})}
    with pytest.raises(DataError) as raised:
        unlabelled.read(recipe(), task, given, named)
    assert [one.rpartition("(in ")[2] for one in raised.value.problems] == ["'a.csv')", "'b.csv')"]


# --- what the teacher thinks ---


def asked(kind: str = "text") -> tuple[Task, Loaded, Pool, Dataset]:
    torch.manual_seed(0)
    task, split, others, processor, teacher, _ = made(kind, 20, 40)
    if kind in ("text", "image"):
        teacher.classifier.weight.data *= 50  # or all answers are about the same
    loaded = Loaded(teacher.eval(), processor, "teacher")
    task = task.adapted_to(loaded)
    return task, loaded, Pool(task.unlabelled(others, {})), task.beside(split)


def answers(kind: str, folder: Path, **section: Any) -> tuple[list[dict[str, Any]], Pool, dict[str, Any]]:
    """What is thought of all; what is kept; by hand what should be thought."""
    task, teacher, pool, labelled = asked(kind)
    made_of = Unlabelled(examples=("x",), **section)
    opinions.ask(made_of, task, teacher, pool, labelled, folder, {"a": 1}, 8)
    rows = [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    return sorted(rows, key=lambda row: row["key"]), opinions.kept(made_of, task, pool, folder), by_hand(
        task, teacher, pool, labelled)


def by_hand(task: Task, teacher: Loaded, pool: Pool, labelled: Dataset) -> dict[str, Any]:
    """An example at a time, plainly."""
    found: dict[str, list[float]] = {"confidence": [], "entropy": []}
    states = {name: [] for name in ("pool", "labelled")}
    recorder = Recorder(teacher.model)
    for name, rows in (("pool", pool.data), ("labelled", labelled)):
        prepared = task.prepare(rows, teacher.processor, None, training=False)
        for index in range(len(prepared)):
            batch = prepared.collate([prepared.examples[index]])
            with torch.no_grad(), recorder.recording() as record:
                logits = teacher.model(**batch.teacher).logits.double()
            p = logits.softmax(-1)
            if name == "pool":
                found["confidence"].append(float(p.max()))
                found["entropy"].append(float(-(p * p.log()).sum()))
            (stack,) = record.hidden_states.values()
            mean = stack[-1].double().mean(1)[0]
            states[name].append(mean / mean.norm())
    centre = torch.stack(states["labelled"]).mean(0)
    centre = centre / centre.norm()
    return {**found, **{name: [1 - float(one @ centre) for one in rows] for name, rows in states.items()}}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "image"])
def test_confidence_entropy_and_distance_are_those_of_the_teacher(kind: str, tmp_path: Path) -> None:
    rows, _, expected = answers(kind, tmp_path, near=0.5)
    assert [row["key"] for row in rows] == list(range(40))
    for name in ("confidence", "entropy"):
        assert [row[name] for row in rows] == pytest.approx(expected[name], abs=1e-5)
    assert [row["distance"] for row in rows] == pytest.approx(expected["pool"], abs=1e-5)
    for row in rows:
        assert sum(row["answer"]) == pytest.approx(1)
        assert max(row["answer"]) == pytest.approx(row["confidence"], abs=1e-5)


@pytest.mark.slow
def test_only_what_is_within_all_bounds_is_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, _, expected = answers("text", tmp_path / "look", near=0.5)
    sure, calm = np.quantile(expected["confidence"], 0.3), np.quantile(expected["entropy"], 0.8)
    farthest = np.quantile(expected["labelled"], 0.9)
    _, kept, _ = answers("text", tmp_path / "filter", min_confidence=float(sure), max_entropy=float(calm), near=0.9)
    _, _, pool, _ = asked()
    wanted = [confidence >= sure and entropy <= calm and distance <= farthest for confidence, entropy, distance in
              zip(expected["confidence"], expected["entropy"], expected["pool"])]
    assert kept.data["text"][:] == [text for text, keep in zip(pool.data["text"], wanted) if keep]
    assert 0 < len(kept) < 40
    assert sum(kept.left_out.values()) == 40 - len(kept)
    assert set(kept.left_out) >= {f"less sure than {sure:g}"}
    assert f"{len(kept)} of 40 examples are kept, " in capfd.readouterr().err


def short_and_sure(example: dict[str, Any], said: dict[str, Any]) -> bool:
    assert set(said) == {"confidence", "entropy", "distance", "answer"}
    assert said["distance"] is None
    assert max(said["answer"]) == pytest.approx(said["confidence"], abs=1e-5)
    return len(example["text"].split()) < 5


def raises(example: dict[str, Any], said: dict[str, Any]) -> bool:
    raise KeyError("topic")


@pytest.mark.slow
def test_a_function_of_ones_own_sees_the_example_and_what_the_teacher_says(tmp_path: Path) -> None:
    _, kept, _ = answers("text", tmp_path, keep=f"{__name__}:short_and_sure")
    texts = asked()[2].data["text"][:]
    assert kept.data["text"][:] == [text for text in texts if len(text.split()) < 5]
    assert list(kept.left_out) == [f"not kept by {__name__}:short_and_sure"]
    with pytest.raises(RecipeError, match=r"data\.unlabelled\.keep: '.*:raises' raised KeyError: 'topic'"):
        answers("text", tmp_path / "raises", keep=f"{__name__}:raises")


@pytest.mark.slow
def test_pictures_reach_a_teacher_whose_weights_are_halved(tmp_path: Path) -> None:
    task, teacher, pool, labelled = asked("image")
    teacher.model.to(torch.bfloat16)
    section = Unlabelled(examples=("x",), min_confidence=0.0, near=1.0)
    opinions.ask(section, task, teacher, pool, labelled, tmp_path / "halved", {}, 8)
    halved = opinions.Parts(tmp_path / "halved", opinions.SCHEMA).rows()
    whole, _, _ = answers("image", tmp_path / "whole", min_confidence=0.0, near=1.0)
    for name in ("confidence", "distance"):
        assert [row[name] for row in halved] == pytest.approx([row[name] for row in whole], abs=0.05)


@pytest.mark.slow
def test_of_several_words_there_is_no_one_answer(tmp_path: Path) -> None:
    rows, kept, _ = answers("words", tmp_path, min_confidence=0.0)
    assert [row["answer"] for row in rows] == [None] * 40
    assert sum(row["rows"] for row in rows) == sum(len(words) for words in kept.data["tokens"])
    assert all(0 < row["confidence"] <= 1 for row in rows)


def test_documents_in_pieces_are_judged_by_all_their_rows(tmp_path: Path) -> None:
    task, teacher, _, labelled = asked("causal")
    longest = " ".join(["the old cat sat"] * 20)
    pool = Pool(task.unlabelled(Dataset.from_dict({"text": [longest, "a dog"]}), {}))
    section = Unlabelled(examples=("x",), min_confidence=0.0, near=1.0)
    opinions.ask(section, task, teacher, pool, labelled, tmp_path, {}, 2)
    rows = [row for file in sorted(tmp_path.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    pieces = [row for row in rows if row["key"] == 0]
    assert len(pieces) > 2
    whole = opinions._by_example(rows, 2)
    weighted = sum(row["rows"] * row["confidence"] for row in pieces) / sum(row["rows"] for row in pieces)
    assert whole["confidence"][0] == pytest.approx(weighted)
    assert all(row["answer"] is None and row["distance"] is not None for row in rows)


@pytest.mark.slow
def test_other_bounds_need_no_other_answers_and_a_kill_loses_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, teacher, pool, labelled = asked()
    section = Unlabelled(examples=("x",), min_confidence=0.5)
    monkeypatch.setattr("stilla.stages.parts.BATCHES", 2)
    real, calls = opinions._Asked.rows, []

    def killed(self: opinions._Asked, prepared: Prepared, batch: Any) -> Any:
        calls.append(batch)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, prepared, batch)

    monkeypatch.setattr(opinions._Asked, "rows", killed)
    with pytest.raises(KeyboardInterrupt):
        opinions.ask(section, task, teacher, pool, labelled, tmp_path / "a", {}, 8)
    opinions.ask(section, task, teacher, pool, labelled, tmp_path / "a", {}, 8)
    assert len(calls) == 3 + 3  # the two batches of the first part are there
    opinions.ask(section, task, teacher, pool, labelled, tmp_path / "b", {}, 8)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    middle = float(np.median([row["confidence"] for row in opinions.Parts(tmp_path / "a", opinions.SCHEMA).rows()]))
    fewer, more = (opinions.kept(Unlabelled(examples=("x",), min_confidence=bound), task, pool, tmp_path / "a")
                   for bound in (middle, 0.1))
    assert len(calls) == 11
    assert (len(fewer), len(more)) == (20, 40)
    with pytest.raises(DataError, match="all 40 examples are left out"):
        opinions.kept(Unlabelled(examples=("x",), min_confidence=1.0), task, pool, tmp_path / "a")


@pytest.mark.parametrize(
    ("kind", "section", "said"),
    [("seq2seq", {"min_confidence": 0.5}, "here it writes one; use the filters of completions"),
     ("seq2seq", {"near": 0.5}, "here it writes one"), ("text", {"keep": "nowhere:f"}, "module 'nowhere' cannot be imported"),
     ("text", {"min_confidence": 0.5, "near": 0.5, "max_entropy": 1.0}, None), ("seq2seq", {}, None)],
)  # fmt: skip
def test_filters_that_cannot_work_are_known_before(kind: str, section: dict[str, Any], said: str | None) -> None:
    task = made(kind, 4, 4)[0]
    found = opinions.problems(Unlabelled(examples=("x",), **section), task)
    assert (said is None) == (not found)
    assert said is None or all(said in problem for problem in found)


def test_a_number_has_no_confidence() -> None:
    split = Dataset.from_dict({"text": ["a", "b"], "score": [0.5, 1.5]})
    task = TextClassification.understand(TextClassificationData(train="x"), {"train": split})
    found = opinions.problems(Unlabelled(examples=("x",), min_confidence=0.5, near=0.9), task)
    assert [problem.partition(":")[0] for problem in found] == ["data.unlabelled.min_confidence"]


# --- what is written, what was learnt ---


def test_where_texts_have_to_be_written_the_recipe_says_that_the_teacher_does() -> None:
    plain = {"task": "seq2seq", "data": {"train": "x", "unlabelled": "y"}, "teacher": "t", "student": 1}
    task = made("seq2seq", 4, 4)[0]
    settled = completions.settled(from_options(plain), task).completions
    assert settled is not None
    assert (settled.by, settled.of) == ("teacher", "unlabelled")
    said = from_options({**plain, "completions": "teacher"})
    assert completions.settled(said, task) is said
    without = from_options({**plain, "data": "x"})
    assert completions.settled(without, task) is without
    assert completions.settled(from_options({**plain, "task": "masked-lm"}), made("masked", 4, 4)[0]).completions is None


def test_examples_are_counted_by_what_was_seen_of_the_prepared_ones() -> None:
    marks = np.array([False] * 4 + [True] * 6)
    keys = np.array([0, 1, 2, 2, 3, 4, 5, 6, 7, 8])  # the third in two pieces; the last has nothing to predict
    prepared = Prepared([], lambda _: None, keys, unlabelled=marks[keys])  # type: ignore[arg-type, return-value]
    assert examples_in(prepared, marks, Learnt(9, 5, 5)) == {"steps": 9, "labelled": 4, "unlabelled": 5}
    assert examples_in(prepared, marks, Learnt(1, 5, 2)) == {"steps": 1, "labelled": 4, "unlabelled": 2}
    packed = Prepared([], lambda _: None, np.array([0, 4, 7]), packed=True, unlabelled=np.array([False, True, True]))  # type: ignore[arg-type, return-value]
    assert examples_in(packed, marks, Learnt(3, 1, 1)) == {"steps": 3, "labelled": 4, "unlabelled": 3}


def test_of_several_stages_the_one_that_saw_most_counts() -> None:
    left_out = {MEASURED: 3}
    found = learnt.said_in(regression(), [{"steps": 9, "labelled": 0, "unlabelled": 40, "left out": left_out}, None,
                                      {"steps": 5, "labelled": 20, "unlabelled": 7, "left out": left_out}])
    assert found.learnt == {"labelled": 20, "unlabelled": 40, f"left out: {MEASURED}": 3}
    assert found.notes[-1] == ("learnt from: 20 labelled and 40 unlabelled examples; unlabelled ones left out: 3 (in "
                               "validation or test data)")
    assert learnt.said_in(regression(), [None]) == regression()


def test_what_is_kept_may_be_read_without_a_word_where_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    read(["good", "new"], splits(validation=["v", "w"]))
    assert not caplog.records
