"""Recommendation: from histories to ranks over the whole catalogue, and what is refused."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from stilla import tasks
from stilla.errors import CompatibilityError, DataError
from stilla.evaluate import Asked, examine
from stilla.objectives import Labels, Logits
from stilla.recipe import ModelSource, StudentSpec, Teacher
from stilla.rows import row_loss
from stilla.signals import Batch, Dense, Side, TopK
from stilla.stages.starting import start_student
from stilla.tasks.answers import Answers
from stilla.tasks.forward import listen
from stilla.tasks.recommendation.catalogue import Catalogue
from stilla.tasks.recommendation.exam import LIST, RANK, RecommendationExam, Wanted, judged
from stilla.tasks.recommendation.recommendation import Recommendation
from stilla.views import Ranking
from tests.tasks.recommendation.setting import ITEMS, folder, histories, loaded, split, spread, task

both = pytest.mark.parametrize("mask", [None, 0.3], ids=["next", "hidden"])


def answers(scores: Tensor, wanted: Tensor, longest: int = 10, seen: Tensor | None = None) -> Answers:
    given = judged(scores, wanted, seen, longest).numpy()
    return Answers(np.arange(len(given)), given, [Wanted(int(one)) for one in wanted])


def exam(items: int = ITEMS, at: tuple[int, ...] = (10,)) -> RecommendationExam:
    lines = [[f"i{one}" for one in range(items)]]
    return task(Dataset.from_dict({"user": ["a"], "items": lines}), at=at).exam()


def values(said: Answers, made: RecommendationExam) -> dict[str, float]:
    return {metric.name: metric.compute(said.given, said.references) for metric in made.metrics()}


# --- ranks ---


def test_ranks_are_those_of_trec_eval_where_ties_stand_against_what_was_taken() -> None:
    library = pytest.importorskip("pytrec_eval")
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 40, (50, 200), generator=generator).double()  # five of a kind
    wanted = torch.randint(0, 200, (50,), generator=generator)
    made = exam(200, at=(10, 5))
    found = values(answers(scores, wanted), made)
    # the one that was taken a hair behind all that are as good
    run = {str(user): {str(item): float(score) - 0.5 * (item == int(wanted[user])) for item, score in enumerate(row)}
           for user, row in enumerate(scores)}
    measured = library.RelevanceEvaluator({str(user): {str(int(item)): 1} for user, item in enumerate(wanted)},
                                          {"ndcg_cut.5,10", "recall.5,10", "recip_rank"}).evaluate(run)
    for ours, theirs in {"ndcg_at_5": "ndcg_cut_5", "ndcg_at_10": "ndcg_cut_10", "hr_at_5": "recall_5",
                         "hr_at_10": "recall_10", "mrr": "recip_rank"}.items():
        assert found[ours] == pytest.approx(np.mean([one[theirs] for one in measured.values()]), abs=1e-12)
    assert made.metrics()[0].name == "ndcg_at_10"


def test_who_cannot_tell_items_apart_gets_nothing() -> None:
    said = answers(torch.full((40, 100), 0.7), torch.arange(40))
    found = values(said, exam(100))
    assert (found["hr_at_10"], found["ndcg_at_10"], found["mrr"]) == (0, 0, pytest.approx(0.01))


def test_coverage_is_the_share_of_the_items_in_anybodys_list() -> None:
    scores = torch.zeros(3, 20, dtype=torch.float64)
    for user, best in enumerate(([0, 1], [1, 2], [0, 2])):
        scores[user, best] = 1.0
    made = exam(20, at=(2,))
    said = answers(scores, torch.zeros(3, dtype=torch.long), 2)
    assert values(said, made)["coverage_at_2"] == 3 / 20
    (coverage,) = [metric for metric in made.metrics() if metric.name == "coverage_at_2"]
    assert coverage.from_list is not None
    assert coverage.from_list(coverage.statistics(said.given, None), np.array([2, 0, 0])) == 2 / 20


def test_what_was_seen_stands_in_no_list_and_to_want_it_is_a_miss() -> None:
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0], [5.0, 4.0, 3.0, 2.0]])
    found = judged(scores, torch.tensor([1, 0]), torch.tensor([[0, -1], [0, 1]]), 3)
    assert found[:, RANK].tolist() == [1, 0]
    assert found[:, LIST : LIST + 3].tolist() == [[1, 2, 3], [2, 3, -1]]


def test_what_nobody_knows_is_a_miss_and_no_number_is_none() -> None:
    scores = torch.tensor([[1.0, 2.0], [torch.nan, 1.0]])
    found = judged(scores, torch.tensor([-1, 1]), None, 2)
    assert found[0, RANK] == 0
    assert found[1].isnan().all()


def test_the_most_popular_items_are_measured_without_a_model() -> None:
    lines = [["a", "b"], ["a", "c"], ["a", "b", "d"]]
    made = task(Dataset.from_dict({"user": list("xyz"), "items": lines}), at=(2,)).exam()
    said = Answers(np.arange(2), np.zeros((2, 5)), [Wanted(1, np.array([0])), Wanted(3, None)])
    simple = made.without_a_model(said)["popularity"]
    assert simple.numbers == 4
    assert simple.given[:, RANK].tolist() == [1, 4]  # c and d are as popular as each other
    assert simple.given[:, LIST].tolist() == [1, 0]


def test_what_is_popular_is_ranked_as_any_scores_are() -> None:
    draw = np.random.default_rng(0)
    made = exam(40, at=(5,))
    counts = draw.integers(0, 6, 40)
    wanted = [Wanted(int(draw.integers(-1, 40)), np.unique(draw.integers(0, 40, 3)).astype(np.int32)) for _ in range(50)]
    said = Answers(np.arange(50), np.zeros((50, 8)), wanted)
    scores = torch.from_numpy(counts).double().expand(50, 40)
    seen = [np.pad(one.seen, (0, 3 - len(one.seen)), constant_values=-1) for one in wanted if one.seen is not None]
    expected = judged(scores, torch.tensor([one.item for one in wanted]), torch.from_numpy(np.stack(seen)).long(), 5)
    found = made._by_number(counts, said)
    np.testing.assert_array_equal(found[:, RANK], expected[:, RANK])
    listed, theirs = found[:, LIST : LIST + 5].astype(int), expected[:, LIST : LIST + 5].long().numpy()
    np.testing.assert_array_equal(counts[listed], counts[theirs])  # of equal ones any
    assert not any(set(row) & set(one.tolist()) for row, one in zip(listed.tolist(), seen))


# --- data ---


def test_items_are_numbered_by_how_often_they_are_taken() -> None:
    made = task(Dataset.from_dict({"user": list("xy"), "items": [["b", "a", "c"], ["c", "b", "c"]]}))
    assert made.catalogue.items == ("c", "b", "a")
    assert made.row_classes() == 3
    assert (made.catalogue.pad_token_id, made.catalogue.outputs) == (3, 4)


def test_what_users_come_back_to_may_be_recommended_again() -> None:
    assert not task().catalogue.seen
    assert task(Dataset.from_dict({"user": ["x"], "items": [["a", "b", "a"]]})).catalogue.seen
    assert task(seen="keep").catalogue.seen


def test_items_that_no_training_knows_are_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    tested = Dataset.from_dict({"user": list("xy"), "items": [["i1"], ["i2", "new"]], "next": ["new", "i3"]})
    with caplog.at_level(logging.WARNING):
        made = Recommendation.understand(task().section, {"train": split(), "test": tested})
    assert "data.test: 1 of 2 users take next what nobody in the training data has taken" in caplog.text
    assert "at most 50.0 % can be right" in caplog.text
    one = loaded(made)
    prepared = made.prepare(tested, one.processor, None, training=False)
    said = examine(made.exam(), {"student": Asked(one.model)}, prepared)["student"]
    assert said.given[0, RANK] == 0 < said.given[1, RANK]


def test_a_table_says_what_items_are_called(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("item_id,title\ni3,The third\nzz,Another\n", encoding="utf-8")
    made = task(names=str(tmp_path / "names.csv"))
    assert made.decoded(made.catalogue.read(["i3", "i4"])) == "The third, i4"
    (tmp_path / "none.csv").write_text("item_id,price\ni3,4\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"data\.names: .* has no column of names"):
        task(names=str(tmp_path / "none.csv"))
    (tmp_path / "two.csv").write_text("item_id,title\ni3,One\ni3,One\ni3,Other\n", encoding="utf-8")
    with pytest.raises(DataError, match="has two names for the item 'i3': 'One' and 'Other'"):
        task(names=str(tmp_path / "two.csv"))
    (tmp_path / "empty.csv").write_text("item_id,title\ni3,\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"'title' of .* is empty for all 1 items"):
        task(names=str(tmp_path / "empty.csv"))


def test_a_report_says_that_leave_last_out_looks_ahead(tmp_path: Path) -> None:
    def said(**how: Any) -> list[str]:
        section = task(**how).section
        assert section is not None
        splits = spread(tmp_path, **how)
        return Recommendation.understand(section, splits).exam().remarks({}, Batch())

    assert "may lie before what was learnt of others" in said()[0]
    assert said(hold_out="last") == said()
    assert said(hold_out="users") == []


# --- examples ---


def test_every_item_is_foretold_once_of_those_before_it() -> None:
    made = task(max_length=4)
    prepared = made.prepare(split(), made.catalogue, None, training=True)
    batch = prepared.collate(list(range(len(prepared))))
    inputs, labels = batch.student["input_ids"], batch.labels
    assert labels is not None
    assert torch.equal(labels[:, :-1][labels[:, :-1] >= 0], inputs[:, 1:][labels[:, :-1] >= 0])
    assert inputs.shape[1] == 4
    assert made.counts(batch)["rows"] == sum(len(line) - 1 for line in histories())
    assert int(labels.max()) < ITEMS == int(inputs.max())  # the padding is no item


def test_hidden_items_are_drawn_anew_each_epoch_and_from_nothing_else() -> None:
    made = task(mask=0.3)
    prepared = made.prepare(split(), made.catalogue, None, training=True, seed=3)
    assert prepared.on_epoch is not None
    everything = list(range(len(prepared)))
    first, alone = prepared.collate(everything), prepared.collate([5])
    width = alone.student["input_ids"].shape[1]
    assert torch.equal(first.student["input_ids"][5, :width], alone.student["input_ids"][0])
    hidden = first.student["input_ids"] == made.catalogue.mask_token_id
    assert torch.equal(hidden, first.labels >= 0)
    share = float(hidden.sum() / first.student["attention_mask"].sum())
    assert 0.2 < share < 0.35
    prepared.on_epoch(1)
    assert not torch.equal(prepared.collate(everything).labels, first.labels)
    prepared.on_epoch(0)
    assert torch.equal(prepared.collate(everything).labels, first.labels)


@both
def test_what_is_asked_stands_at_the_end_of_the_latest_items(mask: float | None) -> None:
    made = task(mask=mask, max_length=4)
    rows = Dataset.from_dict({"user": ["x", "y"], "items": [[f"i{one}" for one in range(1, 7)], ["i7"]],
                              "next": ["i8", "i9"]})
    batch = made.prepare(rows, made.catalogue, None, training=False).collate([0, 1])
    names = [*made.catalogue.items, "pad", "mask"]
    shown = [[names[one] for one in row] for row in batch.student["input_ids"].tolist()]
    assert shown == ([["i3", "i4", "i5", "i6"], ["i7", "pad", "pad", "pad"]] if mask is None else
                     [["i4", "i5", "i6", "mask"], ["i7", "mask", "pad", "pad"]])
    assert batch.labels is not None
    assert (batch.labels >= 0).sum(1).tolist() == [1, 1]
    assert [names[int(one)] for one in batch.labels[batch.labels >= 0]] == ["i8", "i9"]
    assert sorted(names[int(one)] for one in batch["seen"][0]) == ["i1", "i2", "i3", "i4", "i5", "i6"]


@pytest.mark.slow
@both
def test_padded_and_unpadded_histories_get_the_same_list(mask: float | None) -> None:
    made = task(mask=mask)
    one = loaded(made)
    prepared = made.prepare(split(), one.processor, None, training=False)
    together, alone = (examine(made.exam(), {"student": Asked(one.model)}, prepared, batch_size=size)["student"].given
                       for size in (60, 1))
    np.testing.assert_array_equal(np.asarray(together)[:, LIST : LIST + 10], np.asarray(alone)[:, LIST : LIST + 10])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@both
def test_neither_padding_nor_mask_is_ever_scored(mask: float | None) -> None:
    made = task(mask=mask)
    one = loaded(made)
    made = made.adapted_to(one)
    batch = made.prepare(split(), one.processor, None, training=True).collate(list(range(8)))
    before = listen(one.model, made, batch, Side.STUDENT)
    head = one.model.get_output_embeddings()
    with torch.no_grad():
        assert head.weight.shape[0] == made.catalogue.outputs
        loss = row_loss([(Labels(), 1.0)], made.alone(before, batch).logits, None, before.labels, 0.0)[0]
        bias = torch.zeros(made.catalogue.outputs)
        bias[ITEMS:] = 50.0
        head.bias = torch.nn.Parameter(bias if head.bias is None else head.bias + bias)
        after = listen(one.model, made, batch, Side.STUDENT)
        assert torch.equal(row_loss([(Labels(), 1.0)], made.alone(after, batch).logits, None, after.labels, 0.0)[0], loss)


# --- what is taught ---


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
def test_the_likeliest_items_are_all_items_where_there_are_no_more(divergence: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(7, ITEMS, generator=generator, dtype=torch.float64) for _ in range(2))
    objective = Logits(divergence=divergence, temperature=1.0)
    whole = objective.losses(student, Dense(teacher), None, 0.0)
    everything = TopK(torch.arange(ITEMS).expand(7, ITEMS), teacher.log_softmax(-1), torch.full((7,), -torch.inf))
    torch.testing.assert_close(objective.losses(student, everything, None, 0.0), whole, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@both
def test_a_student_of_fewer_layers_reads_the_same_items(mask: float | None) -> None:
    made = task(mask=mask)
    teacher = loaded(made)
    made = made.adapted_to(teacher)
    student, ours = start_student(StudentSpec(layers=1), made, teacher)
    assert made.alike(ours.processor, teacher.processor)
    assert student.model.config.num_hidden_layers == 1
    narrow, _ = start_student(StudentSpec(config={"hidden_size": 8, "intermediate_size": 16}), made, teacher)
    assert narrow.model.get_input_embeddings().weight.shape == (made.catalogue.outputs, 8)


def test_a_student_of_another_family_reads_the_same_items(tmp_path: Path) -> None:
    made = task()
    teacher = loaded(made)
    made = made.adapted_to(teacher)
    other = loaded(made, "gpt2")
    other.model.save_pretrained(tmp_path)
    other.processor.save_pretrained(tmp_path)
    student, ours = start_student(StudentSpec(model=str(tmp_path)), made, teacher)
    assert student.model.config.model_type == "gpt2"
    batch = made.prepare(split(), ours.processor, teacher.processor, training=True).collate([0, 1, 2])
    said, told = made.align(listen(student.model, made, batch, Side.STUDENT),
                            listen(teacher.model, made, batch, Side.TEACHER), batch)
    assert len(said.logits) == len(told.logits) == made.counts(batch)["rows"]
    assert said.logits.head.classes == told.logits.head.classes == ITEMS


# --- folders ---


@pytest.mark.slow
@both
def test_a_folder_is_loaded_by_transformers_and_recommends_what_was_measured(tmp_path: Path, mask: float | None) -> None:
    made = task(mask=mask, at=(5,))
    place = folder(tmp_path / "model", made)
    page = Path("docs/recommendation.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import json.*?)```", page, re.DOTALL)
    there: dict[str, Any] = {}
    exec(code.replace("runs/recommender/student", place), there)
    assert isinstance(there["model"], tuple((AutoModelForMaskedLM if mask else AutoModelForCausalLM)._model_mapping.values()))
    prepared = made.prepare(split(), made.catalogue, None, training=False)
    one = made.load(ModelSource(model=place), labelled=True)
    assert one.processor == made.catalogue
    said = examine(made.exam(), {"student": Asked(one.model)}, prepared)["student"].given
    for user, line in enumerate(histories()[:5]):
        listed = [made.catalogue.items[int(item)] for item in np.asarray(said)[user, LIST : LIST + 5]]
        assert there["recommend"](line[:-1], 5) == listed


def test_a_folder_says_what_it_is_missing(tmp_path: Path) -> None:
    made = task()
    place = Path(folder(tmp_path / "model", made))
    (place / "items.json").write_text('{"items": ["a"], "titles": null, "pad": 0, "mask": null}', encoding="utf-8")
    with pytest.raises(CompatibilityError, match="`pad` and `mask` do not stand behind the items"):
        made.load(ModelSource(model=str(place)), labelled=True)
    (place / "items.json").unlink()
    with pytest.raises(CompatibilityError, match=r"holds no items\.json, which says what its items are"):
        made.load(ModelSource(model=str(place)), labelled=True)


def test_a_teacher_of_other_items_is_told_what_it_does_not_know(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    few = task(Dataset.from_dict({"user": ["x"], "items": [[f"i{one}" for one in range(20)]]}))
    made = task()
    one = made.load(ModelSource(model=folder(tmp_path / "model", few)), labelled=True)
    with caplog.at_level(logging.WARNING):
        adapted = made.adapted_to(one)
    assert "does not know 4 of the 24 items of the training data" in caplog.text
    prepared = adapted.prepare(split(), one.processor, one.processor, training=True)
    assert int(max(prepared.collate([row]).student["input_ids"].max() for row in range(len(prepared)))) < 20


# --- what is refused ---


@pytest.mark.parametrize(("mask", "source", "why"), [
    (None, {"model": "lama", "config": {}}, r"'lama' is no architecture of transformers.*Did you mean llama\?"),
    (None, {"model": "llama", "config": {"vocab_size": 9}},
     r"teacher\.config\.vocab_size: follows from the items; leave it out"),
    (0.2, {"model": "deberta-v2", "config": {"position_bucket": 9}}, r"has no such field\. Did you mean position_buckets\?"),
    (None, {"model": "llama", "config": {"hiden_size": 9}}, r"LlamaConfig has no such field\. Did you mean hidden_size\?"),
    (None, {"model": "llama", "config": {"hidden_size": 9}},
     r"teacher\.config: no llama over 24 items can be built with it: .*not a multiple"),
    (None, {"model": "t5", "config": {}}, r"transformers has no CausalLM head for t5"),
    (0.2, {"model": "llama", "config": {}}, r"transformers has no MaskedLM head for llama\. Take one that reads both sides"),
    (0.2, {"model": "roberta", "config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}},
     r"no roberta over 24 items can be built .*families of RoBERTa count positions"),
    (None, {"model": "bert", "config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}},
     r"'bert' sees the items that it has to foretell.*is_decoder: true"),
])
def test_a_config_that_cannot_be_meant_is_refused(mask: float | None, source: dict[str, Any], why: str) -> None:
    with pytest.raises(CompatibilityError, match=why):
        task(mask=mask).load(ModelSource(**source), labelled=False)


@pytest.mark.parametrize(("source", "why"), [
    ({"model": "llama", "config": {}}, "a model of random weights knows nothing; train it first"),
    ({"model": "mine:model", "config": {}, "train": {}}, "got 'mine:model' beside it; expected the name of an architecture"),
    ({"model": "llama", "config": {}, "train": {}, "processor": "there"}, "got processor beside it"),
])
def test_a_recipe_says_of_a_config_what_it_is_of(source: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Teacher.model_validate(source)


def test_random_weights_are_no_teacher_and_no_model_of_other_tasks(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="a model of random weights knows nothing; train it first"):
        task().load(ModelSource(model="llama", config={}), labelled=True)
    other = tasks.find("text-classification").understand(
        tasks.sections("text-classification").data(train="x"),
        {"train": Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]})})
    with pytest.raises(CompatibilityError, match="made of a config alone, is for task: recommendation"):
        other.load(ModelSource(model="bert", config={}), labelled=False)


def test_models_of_the_other_way_of_foretelling_are_refused(tmp_path: Path) -> None:
    place = folder(tmp_path / "model", task(mask=0.2))
    with pytest.raises(CompatibilityError, match=r"data\.mask: got None, and the model hides items\. Say data\.mask: 0\.2"):
        task().load(ModelSource(model=place), labelled=True)


def test_models_of_other_items_cannot_be_compared() -> None:
    made = task()
    with pytest.raises(CompatibilityError, match="teacher and student have other items, or other numbers for them"):
        made.prepare(split(), Catalogue(("a", "b")), made.catalogue, training=True)


@pytest.mark.slow
def test_a_student_that_reads_less_than_the_recipe_says_is_refused() -> None:
    made = task(mask=0.2, max_length=20)
    teacher = loaded(made)
    with pytest.raises(CompatibilityError, match=r"'student\.config' cannot read 20 items"):
        start_student(StudentSpec(config={"max_position_embeddings": 10}), made.adapted_to(teacher), teacher)


def test_users_of_a_single_item_are_not_learnt_and_nobody_is_too_few() -> None:
    made = task()
    with pytest.raises(DataError, match="nothing can be learnt of any of the 2 users: none took two items"):
        made.prepare(Dataset.from_dict({"user": list("xy"), "items": [["i1"], ["i2"]]}), made.catalogue, None, training=True)


# --- what a person sees ---


def test_a_person_sees_a_history_and_both_lists_with_what_was_taken_next_marked() -> None:
    made = task(at=(3,))
    rows = Dataset.from_dict({"user": ["ann"], "items": [["i1", "i2"]], "next": ["i3"]})
    catalogue = made.catalogue
    scores = torch.zeros(1, ITEMS)
    scores[0, catalogue.numbers["i3"]], scores[0, catalogue.numbers["i4"]] = 2.0, 1.0
    said = answers(scores, torch.tensor([catalogue.numbers["i3"]]), 3)
    shown = made.exam().view(rows, {"teacher": said, "student": said}, 0, 0)
    assert isinstance(shown, Ranking)
    assert shown.question == "ann: i1 → i2"
    probabilities = scores[0].softmax(-1).sort(descending=True).values
    listed = [(one.text, one.right, one.value) for one in shown.lists["student"]]
    assert len(listed) == 3
    assert listed[:2] == [("i3", True, pytest.approx(float(probabilities[0]), abs=1e-4)),
                          ("i4", False, pytest.approx(float(probabilities[1]), abs=1e-4))]
