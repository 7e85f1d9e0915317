"""From a file to answers: which tokens are an answer, windows, floors, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from datasets import Dataset
from tokenizers import processors
from torch import nn

from stilla import tasks
from stilla.data import joined
from stilla.errors import CompatibilityError, DataError
from stilla.evaluate import Asked, examine
from stilla.objectives import DIST, Labels, Logits
from stilla.objectives.base import Objective, Term
from stilla.recipe import ModelSource
from stilla.signals import Batch, Dense, Dims, Side
from stilla.tasks.answers import NO_ANSWER, Answers
from stilla.tasks.base import Loaded, Prepared
from stilla.tasks.text import answering
from stilla.tasks.text.asked import Question, questions
from stilla.tasks.text.passages import FLOOR
from stilla.tasks.text.question_answering import THRESHOLD, QuestionAnswering
from stilla.tasks.text.sections import QuestionAnsweringData
from stilla.training.distiller import Distiller
from stilla.views import Mark
from tests.tasks.text import answerers, taggers

ROWS = answerers.rows(12)
SPLIT = Dataset.from_dict(ROWS)
SMALL = {"max_length": 32, "longest_answer": 4}


def task_of(rows: dict[str, list[Any]] = ROWS, **section: Any) -> QuestionAnswering:
    made = QuestionAnsweringData(train="x", **{**SMALL, **section})
    return QuestionAnswering.understand(made, {"train": Dataset.from_dict(rows)})


def one(context: str, *answers: str, question: str = "who is it", start: int | None = None) -> dict[str, list[Any]]:
    starts = [context.index(text) if start is None else start for text in answers]
    return {"context": [context], "question": [question], "answers": [{"text": list(answers), "answer_start": starts}]}


def whole(prepared: Prepared) -> Batch:
    return prepared.collate(list(range(len(prepared))))


def unigram() -> Any:
    made = taggers.unigram()
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return made


class Table(nn.Module):
    """Says of every token by itself whether an answer starts and ends there."""

    def __init__(self, size: int, seed: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, 2, generator=torch.Generator().manual_seed(seed)))

    def forward(self, input_ids: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        start, end = self.weight[input_ids].unbind(-1)
        return {"start_logits": start, "end_logits": end}


def answers_of(task: QuestionAnswering, model: nn.Module, prepared: Prepared, batch_size: int = 8) -> Answers:
    return examine(task.exam(), {"student": Asked(model)}, prepared, batch_size=batch_size)["student"]


# --- rows ---


@pytest.mark.parametrize("make", [answerers.tokenizer, taggers.byte_level, unigram])
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_labels_are_the_tokens_with_the_answers_first_and_last_character(make: Any, side: str) -> None:
    task, tokenizer = task_of(max_length=128), make()
    tokenizer.padding_side, tokenizer.model_max_length = side, 128
    batch = whole(task.prepare(SPLIT, tokenizer, None, training=True))
    assert batch.labels is not None
    assert len(batch.labels) == 12
    for row, (context, said) in enumerate(zip(ROWS["context"], ROWS["answers"])):
        first, last = batch.labels[row].tolist()
        places, characters = batch["places"]["student"], batch["characters"]["student"]
        start, end = int(characters[row, first, 0]), int(characters[row, last, 1])
        text = tokenizer.decode(batch.student["input_ids"][row, places[row, first] : places[row, last] + 1])
        assert context[start:end].strip() == (said["text"] or [""])[0]
        if said["text"]:
            assert text.replace("▁", "").replace(" ", "").lower() == said["text"][0].lower()
        else:
            assert first == last
            assert batch.student["input_ids"][row, places[row, first]] == tokenizer.cls_token_id


def test_of_unlabelled_questions_nobody_has_said_the_answer() -> None:
    """Whatever stands as one; a question without an answer in its passage is another thing."""
    task = task_of()
    said = {"passage": ["Ann sees the Bern", "it"], "question": ["who is it", "where"],
            "answers": [{"text": ["nobody"], "answer_start": [900]}, {"text": [], "answer_start": []}]}
    pool = task.usable(task.unlabelled(Dataset.from_dict(said), {}))
    assert pool.to_dict() == {"context": said["passage"], "question": said["question"]}
    assert list(task.traces(pool)) == [("Ann sees the Bern", "who is it"), ("it", "where")]
    batch = whole(task.prepare(joined(task.beside(SPLIT), pool), answerers.tokenizer(), None, training=True))
    assert batch.labels is not None
    assert batch.labels[-2:].tolist() == [[NO_ANSWER, NO_ANSWER]] * 2
    assert NO_ANSWER not in batch.labels[:-2]
    assert {name: task.counts(batch)[name] for name in ("rows", "labelled")} == {"rows": 28, "labelled": 24}
    alone = whole(task.prepare(joined(None, pool), answerers.tokenizer(), None, training=True))
    assert task.counts(alone)["labelled"] == 0
    with pytest.raises(DataError, match="which column is 'context'"):
        task.unlabelled(Dataset.from_dict({"text": ["a"], "question": ["b"]}), {})


def test_a_row_is_a_window_and_an_end_and_only_the_passage_and_cls_are_classes() -> None:
    task, tokenizer = task_of(), answerers.tokenizer()
    batch = whole(task.prepare(SPLIT, tokenizer, None, training=True))
    said = task.signals(Table(len(tokenizer))(**batch.student), batch, Side.STUDENT)
    assert isinstance(said.logits, Dense)
    assert said.logits.logits.shape == (24, 32) == (task.counts(batch)["rows"], task.row_classes())
    counts = task.counts(batch)
    assert set(counts) == set(task.counted)
    assert (counts["labelled"], counts["examples"]) == (24, 12)
    for row, context in enumerate(ROWS["context"]):
        there = (said.logits.logits[2 * row] != FLOOR).sum()
        assert there == 1 + len(tokenizer.tokenize(context)) == (said.logits.logits[2 * row + 1] != FLOOR).sum()
    assert said.labels is not None
    assert (said.logits.logits.gather(1, said.labels[:, None]) != FLOOR).all()


@pytest.mark.parametrize("objective", [Labels(), Logits(), Logits(divergence="reverse_kl"), Logits(divergence="mse")])
def test_a_batch_may_be_cut_anyhow(objective: Any) -> None:
    task, tokenizer = task_of(), answerers.tokenizer()
    prepared = task.prepare(SPLIT, tokenizer, None, training=True)

    def total(batch: Batch) -> torch.Tensor:
        student, teacher = (task.signals(Table(len(tokenizer), seed)(**batch.student), batch, Side.STUDENT)
                            for seed in (1, 2))
        assert isinstance(student.logits, Dense)
        losses: torch.Tensor = objective.losses(student.logits.logits, teacher.logits, student.labels, 0.0)
        assert torch.isfinite(losses).all()
        return losses.sum()

    parts = [total(prepared.collate([row])) for row in range(12)]
    torch.testing.assert_close(total(whole(prepared)), torch.stack(parts).sum())


def test_padding_has_no_influence() -> None:
    task, tokenizer = task_of(), answerers.tokenizer()
    prepared = task.prepare(SPLIT, tokenizer, None, training=False)
    model = answerers.model(len(tokenizer))
    together, alone = (np.asarray(answers_of(task, model, prepared, size).given) for size in (12, 1))
    np.testing.assert_allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize(("objective", "said"), [(DIST(), "dist"), (Labels(label_smoothing=0.1), "label_smoothing"),
                                                 (Logits(standardise=True), "standardise")])
def test_objectives_that_need_classes_of_one_meaning_are_refused(objective: Objective, said: str) -> None:
    tokenizer = answerers.tokenizer()
    with pytest.raises(CompatibilityError, match=said):
        Distiller(answerers.model(len(tokenizer)), [Term(objective)], task_of(), student_dims=Dims(32), teacher_dims=Dims(32))


def test_a_piece_of_a_cache_is_the_same_in_whatever_batch_it_stands() -> None:
    for side in ("right", "left"):
        task, tokenizer = task_of(), answerers.tokenizer()
        tokenizer.padding_side = side
        prepared = task.prepare(SPLIT, tokenizer, None, training=True)
        together = task.segments(prepared.collate([3, 0, 5]))
        (alone,) = task.segments(prepared.collate([0]))
        assert together[1].content == alone.content
        assert [(one.rows.start, one.rows.stop) for one in together] == [(0, 2), (2, 4), (4, 6)]


# --- windows ---


def test_windows_say_the_same_as_one_large_one_where_tokens_answer_by_themselves() -> None:
    rows = answerers.rows(8, longest=40)
    tokenizer = answerers.tokenizer(128)
    model = Table(len(tokenizer))
    found = []
    for length in (128, 18):
        task = task_of(rows, max_length=length, overlap=0.5)
        prepared = task.prepare(Dataset.from_dict(rows), tokenizer, None, training=False)
        assert (len(prepared) > 3 * 8) == (length == 18)
        found.append(answers_of(task, model, prepared))
    whole, cut = (np.asarray(one.given) for one in found)
    assert len(cut) == len(found[1].references) == 8
    np.testing.assert_allclose(whole[:, 1], cut[:, 1], rtol=1e-6)
    np.testing.assert_allclose(whole[:, 0, 0], cut[:, 0, 0], rtol=1e-6)


def test_every_answer_that_fits_into_what_windows_share_stands_whole_in_one() -> None:
    rows = answerers.rows(60, longest=40, maybe_none=False)
    tokenizer = answerers.tokenizer()
    task = task_of(rows, max_length=20, overlap=0.5)
    prepared = task.prepare(Dataset.from_dict(rows), tokenizer, None, training=True)
    batch = whole(prepared)
    assert batch.labels is not None
    summary = (batch["characters"]["student"][..., 1] == 0).int().argmax(1)
    holds = (batch.labels[:, 0] != summary).numpy()
    assert set(prepared.keys[holds].tolist()) == set(range(60))
    assert not holds.all()


def test_a_part_of_an_answer_is_no_answer() -> None:
    context = "unbelievable Ann Bob Ann Bob Bern"
    rows = one(context, "Ann Bob Ann Bob")
    task = task_of(rows, max_length=9, overlap=0.0, longest_answer=2)
    batch = whole(task.prepare(Dataset.from_dict(rows), answerers.tokenizer(), None, training=True))
    assert batch.labels is not None
    assert len(batch.labels) > 1
    assert batch.labels.tolist() == [[0, 0]] * len(batch.labels)


# --- what is refused ---


@pytest.mark.parametrize(("rows", "said"), [
    (one("Ann sees", "Ann", start=1), "does not stand in 'context' where it says"),
    (one("Ann sees", "Ann", start=-8), "does not stand"),
    (one("Ann sees", "Ann", question="  "), "'question' is null or empty"),
    (one(" ", question="who"), "'context' is null or empty"), (one("Ann sees", " ", start=3), "an answer without text"),
    ({**one("Ann sees", "Ann"), "answers": [None]}, r"'answers' is null; expected \[\]"),
])
def test_what_is_wrong_with_a_question_is_said_with_its_row(rows: dict[str, list[Any]], said: str) -> None:
    both = {name: [*ROWS[name], *rows[name]] for name in rows}
    with pytest.raises(DataError, match=f"{said}.*in 1 of 13 examples: row 12"):
        task_of(both)
    task = task_of(both, broken="skip")
    prepared = task.prepare(Dataset.from_dict(both), answerers.tokenizer(), None, training=False)
    assert prepared.keys.tolist() == list(range(12))


def test_columns_that_are_not_there_are_named() -> None:
    with pytest.raises(DataError, match=r"data.context: got 'passage', which is no column"):
        task_of(context="passage")
    with pytest.raises(DataError, match=r"not \{text"):
        task_of({**ROWS, "answers": ["Ann"] * 12})
    with pytest.raises(DataError, match="there is nothing to learn"):
        task_of({**ROWS, "answers": [{"text": [], "answer_start": []}] * 12})


def test_a_list_of_answers_is_read_as_lists_of_texts_and_starts_are() -> None:
    listed = [[{"text": text, "answer_start": start} for text, start in zip(*said.values())] for said in ROWS["answers"]]
    batches = [whole(task_of(rows).prepare(Dataset.from_dict(rows), answerers.tokenizer(), None, training=True))
               for rows in (ROWS, {**ROWS, "answers": listed})]
    assert torch.equal(*(batch["labels"] for batch in batches))


def test_answers_may_be_texts_with_their_starts_beside_them_or_written_into_a_cell() -> None:
    rows = answerers.rows(12)
    plain = questions(task_of(rows).section, Dataset.from_dict(rows))[0]
    flat = {**rows, "answers": [one["text"][0] if one["text"] else None for one in rows["answers"]],
            "answer_start": [str(one["answer_start"][0]) if one["answer_start"] else "-1" for one in rows["answers"]]}
    shown = [repr(one) for one in rows["answers"]]
    pandas = [one.replace("[", "array([", 1).replace("]", "], dtype=object)", 1) for one in shown]
    for column in (shown, pandas, [json.dumps(one) for one in rows["answers"]]):
        said = Dataset.from_dict({**rows, "answers": column})
        assert questions(task_of(rows).section, said) == (plain, {})
    assert questions(task_of(rows).section, Dataset.from_dict(flat)) == (plain, {})
    for odd in ("__import__('os').getcwd()", "a cat", "[1", "array()"):
        said = Dataset.from_dict({**rows, "answers": [odd] * 12})
        assert not questions(task_of(rows).section, said)[0]


def test_a_question_that_leaves_no_room_is_refused() -> None:
    rows = one("Ann sees Bern near the river", "Ann", question="who " * 27)
    both = {name: [*ROWS[name], *rows[name]] for name in rows}
    task = task_of(both)
    with pytest.raises(DataError, match=r"leaves no room for an answer of 4 tokens .* in windows of 32 .*row 12"):
        task.prepare(Dataset.from_dict(both), answerers.tokenizer(), None, training=False)
    left = task_of(both, broken="skip").prepare(Dataset.from_dict(both), answerers.tokenizer(), None, training=False)
    assert 12 not in left.keys


@pytest.mark.parametrize("begins", [True, False])
def test_without_cls_the_first_token_says_that_there_is_no_answer(begins: bool) -> None:
    """The one that begins a text; else the first of the question, as `run_qa` has it."""
    tokenizer = answerers.without_cls(begins=begins)
    batch = whole(task_of().prepare(SPLIT, tokenizer, None, training=True))
    assert batch.labels is not None
    places, characters = batch["places"]["student"], batch["characters"]["student"]
    for row, (context, said) in enumerate(zip(ROWS["context"], ROWS["answers"])):
        first, last = batch.labels[row].tolist()
        if said["text"]:
            assert context[int(characters[row, first, 0]) : int(characters[row, last, 1])].strip() == said["text"][0]
        else:
            assert first == last
            assert places[row, first] == 0
    assert (batch.student["input_ids"][:, 0] == tokenizer.bos_token_id).all() == begins


def test_a_text_that_holds_such_a_token_says_nothing_by_it() -> None:
    rows = one("Ann sees <s> Bern near the river and the old house", "Bern", question="where is it")
    tokenizer = answerers.without_cls(begins=False)
    made = task_of(rows, max_length=20, longest_answer=2).prepare(Dataset.from_dict(rows), tokenizer, None, training=True)
    assert len(made) > 1
    batch = whole(made)
    assert batch.labels is not None
    for row, (first, last) in enumerate(batch.labels.tolist()):
        start, end = (int(batch["characters"]["student"][row, at, side]) for side, at in enumerate((first, last)))
        assert rows["context"][0][start:end].strip() in ("Bern", "")
        assert end or batch["places"]["student"][row, first] == 0


def test_a_tokenizer_that_puts_its_cls_around_no_text_is_refused() -> None:
    bare = answerers.tokenizer()
    bare.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    with pytest.raises(CompatibilityError, match=r"puts its .*CLS.* \(cls_token\).* around no text.*post_processor"):
        task_of().prepare(SPLIT, bare, None, training=True)


def test_batches_that_a_person_makes_are_refused() -> None:
    with pytest.raises(CompatibilityError, match="Use a recipe"):
        tasks.of_model(answerers.model(40))


def test_a_checkpoint_of_another_head_is_no_teacher(tmp_path: Path) -> None:
    """XLNet's beam search has other outputs, and transformers would load it with a new head."""
    tokenizer = answerers.tokenizer()
    config = hf.XLNetConfig(vocab_size=len(tokenizer), d_model=16, n_layer=1, n_head=2, d_inner=16)
    hf.XLNetForQuestionAnswering(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CompatibilityError, match="no trained head"):
        task_of().load(ModelSource(model=str(tmp_path)), labelled=True)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta", "modernbert"])
def test_families_load_and_answer(family: str, tmp_path: Path) -> None:
    tokenizer = {"roberta": taggers.byte_level, "deberta": unigram}.get(family, answerers.tokenizer)()
    config = taggers.config(family, len(tokenizer), ("start", "end"))
    hf.AutoModelForQuestionAnswering.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    task = task_of(max_length=64)
    made = task.load(ModelSource(model=str(tmp_path)), labelled=True)
    said = answers_of(task, made.model, task.prepare(SPLIT, made.processor, None, training=False))
    assert np.asarray(said.given).shape == (12, 1 + answering.BEST, 3)


# --- how it is judged ---


def judged(*given: Any, maybe_none: bool = True) -> tuple[Any, Answers]:
    """Answers as (score of none, score of a piece, its characters) to three questions."""
    asked = [Question("Ann sees the Bern", "who", ((0, 3),)), Question("Ann sees the Bern", "where", ((13, 17), (9, 17))),
             Question("Ann sees the Bern", "when", ())]
    rows = [[[none, 0, 0], [score, start, end]] for none, score, start, end in given]
    task = QuestionAnswering(QuestionAnsweringData(train="x", **SMALL), maybe_none)
    return task.exam(), Answers(np.arange(3), np.array(rows, float), asked)


def test_scores_by_hand_of_questions_with_and_without_answers() -> None:
    exam, said = judged((0, 1, 0, 3), (0, 1, 4, 17), (0, 1, 0, 3))
    found = {one.name: one.compute(said.given, said.references) for one in exam.metrics()}
    near = 2 * 0.5 * 1 / 1.5  # "sees bern" for "bern"
    assert found == pytest.approx({"f1": (1 + near) / 3, "exact_match": 1 / 3, "has_answer_f1": (1 + near) / 2,
                                   "has_answer_exact_match": 0.5, "no_answer_accuracy": 0.0})
    exam, said = judged((0, 1, 0, 3), (0, 1, 4, 17), (2, 1, 0, 3))
    assert exam.metrics()[-1].compute(said.given, said.references) == 1


def test_the_threshold_is_chosen_on_validation_data_alone() -> None:
    exam, validation = judged((4, 1, 0, 3), (5, 1, 13, 17), (9, 1, 0, 3))  # none wins by 3, 4 and 8
    assert exam.threshold(validation) == 6
    _, test = judged((7.5, 1, 0, 3), (0, 1, 13, 17), (6.5, 1, 0, 3))
    settled = exam.settled(test, validation)
    decided = exam.decisions(settled).decided.tolist()
    assert decided == ["", "bern", "ann"]
    assert exam.decisions(test).decided.tolist() == ["", "bern", ""]


def test_where_every_question_has_an_answer_none_is_never_said() -> None:
    exam, said = judged((9, 1, 0, 3), (9, 1, 13, 17), (9, 1, 0, 3), maybe_none=False)
    assert [one.name for one in exam.metrics()] == ["f1", "exact_match"]
    assert exam.settled(said, said) is said
    assert exam.decisions(said).decided.tolist() == ["ann", "bern", "ann"]
    assert exam.constant(said) is None


def test_any_right_answer_is_right_and_is_what_it_is_held_against() -> None:
    exam, said = judged((0, 1, 0, 3), (0, 1, 9, 17), (2, 1, 0, 3))
    decisions = exam.decisions(said)
    assert decisions.right().all()
    assert exam.named(decisions.decided[2]) == "(no answer)"


def test_a_constant_answer_is_none() -> None:
    exam, said = judged((0, 1, 0, 3), (0, 1, 9, 17), (2, 1, 0, 3))
    constant = exam.constant(said)
    assert constant is not None
    assert exam.metrics()[0].compute(constant, said.references) == pytest.approx(1 / 3)


def test_a_reader_sees_the_passage_with_the_answers_of_the_data_and_of_both() -> None:
    exam, said = judged((0, 1, 0, 3), (0, 1, 4, 8), (2, 1, 0, 3))
    other = said.but(np.array(said.given)[[1, 2, 0]])
    shown = exam.view(SPLIT, {"teacher": said, "student": other}, 1, 0)
    assert shown.text == "where\n\nAnn sees the Bern"
    marked = [(shown.text[mark.start : mark.end], mark.by) for mark in shown.marks]
    assert marked == [("Bern", ""), ("the Bern", ""), ("sees", "teacher")]  # the student says none
    assert all(isinstance(mark, Mark) for mark in shown.marks)


def test_long_passages_are_shown_around_what_is_marked() -> None:
    exam, _ = judged((0, 1, 0, 3), (0, 1, 4, 8), (2, 1, 0, 3))
    context = "x" * 5000 + " Ann " + "y" * 5000
    said = Answers(np.arange(1), np.array([[[0.0, 0, 0], [1, 5001, 5004]]]), [Question(context, "who", ((5001, 5004),))])
    shown = exam.view(SPLIT, {"teacher": said, "student": said}, 0, 0)
    assert len(shown.text) < 1000
    assert {shown.text[mark.start : mark.end] for mark in shown.marks} == {"Ann"}


def test_the_threshold_is_saved_with_the_model(tmp_path: Path) -> None:
    exam, validation = judged((4, 1, 0, 3), (5, 1, 13, 17), (9, 1, 0, 3))
    model = answerers.model(40)
    task_of().settle(model, validation)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())[THRESHOLD] == 6 == exam.threshold(validation)
    assert task_of().settles
    assert not task_of(answerers.rows(12, maybe_none=False)).settles


def test_equal_models_have_no_divergence() -> None:
    task, tokenizer = task_of(), answerers.tokenizer()
    prepared = task.prepare(SPLIT, tokenizer, tokenizer, training=False)
    teacher, student = Table(len(tokenizer)), Table(len(tokenizer), 1)
    said = examine(task.exam(), {"teacher": Asked(teacher, Side.TEACHER), "same": Asked(teacher), "student": Asked(student)},
                   prepared)
    assert np.asarray(task.exam().divergence(said["teacher"], said["same"])) == pytest.approx(0)
    assert (task.exam().divergence(said["teacher"], said["student"]) > 0).all()


def test_a_loaded_model_has_what_the_task_reads(tmp_path: Path) -> None:
    made = task_of().load(ModelSource(model=answerers.folder(tmp_path / "m")), labelled=True)
    assert isinstance(made, Loaded)
    said = task_of().outputs(made.model(**made.processor(["who"], ["Ann"], return_tensors="pt")))
    assert said.shape[-1] == 2
