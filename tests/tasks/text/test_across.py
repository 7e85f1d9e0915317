"""One passage in two tokenizers' tokens: borders that both have, windows of one text, probability that stays in its block."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn

from stilla.errors import CompatibilityError, DataError
from stilla.evaluate import Asked, examine
from stilla.objectives import Logits
from stilla.signals import Batch, Dense, Side, Signals, TopK
from stilla.tasks.text.across import FLOOR, borders, carried, ranks, stands_for
from stilla.tasks.text.question_answering import QuestionAnswering
from stilla.tasks.text.sections import QuestionAnsweringData
from tests.tasks.text import answerers, taggers
from tests.tasks.text.test_question_answering import unigram

Pieces = list[tuple[int, int]]
MAKERS = {"wordpiece": answerers.tokenizer, "bytes": taggers.byte_level, "unigram": unigram}
PAIRS = list(itertools.permutations(MAKERS, 2))


def spans_of(pieces: Pieces) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.array([one for one, _ in pieces], np.int32), np.array([end for _, end in pieces], np.int32)


def by_force(context: str, ours: Pieces, theirs: Pieces) -> set[tuple[int, int]]:
    """All ways to part both into tokens before and behind, so that the same characters without spaces are before."""
    def letters(pieces: Pieces) -> frozenset[int]:
        return frozenset(place for start, end in pieces for place in range(start, end) if not context[place].isspace())

    return {(one, other) for one in range(len(ours) + 1) for other in range(len(theirs) + 1)
            if letters(ours[:one]) == letters(theirs[:other]) and not letters(ours[:one]) & letters(ours[one:])
            and not letters(theirs[:other]) & letters(theirs[other:])}


def drawn(context: str, draw: np.random.Generator, *, spaced: bool, bytewise: bool) -> Pieces:
    """Tokens of a text at random: with the space before a word or without it, and some characters as two tokens."""
    pieces, start = [], 0
    while start < len(context):
        end = min(len(context), start + int(draw.integers(1, 5)))
        inner = (start, end) if spaced else (start + len(context[start:end]) - len(context[start:end].lstrip()), end)
        if inner[0] < inner[1]:
            pieces += [inner] * (2 if bytewise and end - start == 1 else 1)
        if draw.random() < 0.2:
            pieces.append((-1, -1))  # a token of no character
        start = end
    return pieces


def test_borders_are_those_that_a_search_by_force_finds() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        context = "".join(draw.choice(list("ab c"), size=12)) + "d"
        ours, theirs = (drawn(context, draw, spaced=spaced, bytewise=spaced) for spaced in (True, False))
        found = set(zip(*(one.tolist() for one in borders(ranks(context), spans_of(ours), spans_of(theirs)))))
        allowed = by_force(context, ours, theirs)
        assert found <= allowed
        # where characters come between, one border is taken
        letters = {frozenset(p for s, e in ours[:one] for p in range(s, e) if not context[p].isspace())
                   for one, _ in allowed}
        assert len(found) >= len(letters)


def prepared_of(ours: str, theirs: str, length: int = 64, count: int = 12, **options: Any) -> tuple[QuestionAnswering, Any]:
    rows = answerers.rows(count, longest=20, **options)
    section = QuestionAnsweringData(train="x", max_length=length, longest_answer=4, overlap=0.4)
    task = QuestionAnswering.understand(section, {"train": Dataset.from_dict(rows)})
    both = [MAKERS[name]() for name in (ours, theirs)]
    for one in both:
        one.model_max_length = 64
    return task, task.prepare(Dataset.from_dict(rows), *both, training=True)


def letters_of(batch: Batch, side: str, window: int, context: str) -> str:
    spans = batch["characters"][side][window].clamp_min(0).tolist()
    there = {place for start, end in spans for place in range(start, end)}
    return "".join(context[place] for place in sorted(there)).replace(" ", "")


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_both_models_read_the_same_windows(ours: str, theirs: str) -> None:
    task, prepared = prepared_of(ours, theirs, length=30)
    assert not prepared.aligned
    assert len(prepared) > 12
    batch = prepared.collate(list(range(len(prepared))))
    assert max(one["input_ids"].shape[1] for one in (batch.student, batch.teacher)) <= 30
    for window, asked in enumerate(prepared.references):
        mine, yours = (letters_of(batch, side, window, asked.context) for side in ("student", "teacher"))
        assert mine == yours != ""
    assert task.segments(batch)[0].content != task.segments(prepared.collate([1]))[0].content


def masses(logits: torch.Tensor, groups: list[list[int]]) -> torch.Tensor:
    return torch.stack([torch.softmax(logits, -1)[one].sum() for one in groups])


def blocks_of(batch: Batch, window: int, context: str) -> list[list[list[int]]]:
    """The classes of every block, on either side."""
    spans = [batch["characters"][side][window] for side in ("student", "teacher")]
    real = [torch.nonzero(one[:, 1] > 0).flatten().tolist() for one in spans]
    pieces = [spans_of([tuple(one[place].tolist()) for place in places]) for one, places in zip(spans, real)]
    return [[[places[token] for token in range(start, end)] for start, end in itertools.pairwise(cut.tolist())]
            for places, cut in zip(real, borders(ranks(context), *pieces))]


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_every_block_keeps_its_probability_exactly(ours: str, theirs: str) -> None:
    _, prepared = prepared_of(ours, theirs)
    batch = prepared.collate(list(range(len(prepared))))
    logits = 6 * torch.randn(len(prepared), 2, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = torch.where((batch["places"]["teacher"] >= 0)[:, None], logits, FLOOR)
    told = carried(logits, batch["across"]["to"], batch["across"]["cells"])
    assert torch.equal(told != FLOOR, (batch["places"]["student"] >= 0)[:, None].expand_as(told))
    for window, asked in enumerate(prepared.references):
        blocks = blocks_of(batch, window, asked.context)
        assert len(blocks[0]) > 2
        for row in range(2):
            torch.testing.assert_close(masses(told[window, row], blocks[0]), masses(logits[window, row], blocks[1]),
                                       rtol=1e-12, atol=1e-15)


def test_a_teachers_answer_keeps_its_text_and_the_rest_of_a_word_gets_almost_nothing() -> None:
    """Beyonce in one token of the teacher's, and as Bey|on|ce in the student's."""
    context = "so Beyonce sang"
    ours = spans_of([(0, 0), (-1, -1), (0, 2), (2, 6), (6, 8), (8, 10), (10, 15)])
    theirs = spans_of([(0, 0), (-1, -1), (-1, -1), (0, 2), (3, 10), (11, 15)])
    to, cells = stands_for(ranks(context), ours, theirs)
    assert to.tolist() == [[0, 0], [-1, -1], [-1, -1], [2, 2], [3, 5], [6, 6]]
    assert cells.T.tolist() == [[0, -1, 2, 3, 3, 3, 6], [0, -1, 2, 5, 5, 5, 6]]
    logits = torch.tensor([0.1, FLOOR, FLOOR, 0.3, 0.4, 0.2], dtype=torch.float64).expand(1, 2, 6)
    told = carried(logits, torch.tensor(to.T[None]).long(), torch.tensor(cells.T[None]).long())
    p, little = torch.softmax(logits[0, 0], -1), float(np.exp(-10))
    expected = [p[0], 0, p[3], p[4] * (1 - 2 * little), p[4] * little, p[4] * little, p[5]]
    torch.testing.assert_close(torch.softmax(told[0, 0], -1), torch.tensor(expected).double(), rtol=1e-12, atol=1e-15)
    expected[3], expected[5] = expected[5], expected[3]
    torch.testing.assert_close(torch.softmax(told[0, 1], -1), torch.tensor(expected).double(), rtol=1e-12, atol=1e-15)


def test_finer_tokens_of_the_teacher_are_summed_and_a_moved_mass_costs_what_it_costs_by_hand() -> None:
    context = "Ann saw it"
    ours, theirs = spans_of([(0, 0), (0, 3), (3, 7), (7, 10)]), spans_of([(0, 0), (0, 1), (1, 3), (4, 7), (8, 9), (9, 10)])
    to, cells = (torch.tensor(one.T[None]).long() for one in stands_for(ranks(context), ours, theirs))
    told = torch.tensor([0.1, 0.2, 0.2, 0.3, 0.1, 0.1], dtype=torch.float64).log().expand(1, 2, 6)
    same = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64).log()
    moved = torch.tensor([0.1, 0.2, 0.5, 0.2], dtype=torch.float64).log()  # 0.2 over a border
    teacher = Dense(carried(told, to, cells).flatten(0, 1))
    loss = Logits(temperature=1.0)
    nothing, something = (loss.losses(one.expand(2, 4), teacher, None, 0.0) for one in (same, moved))
    torch.testing.assert_close(nothing, torch.zeros(2).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(something, torch.tensor([0.4 * np.log(0.4 / 0.2) + 0.3 * np.log(0.3 / 0.5)] * 2),
                               rtol=1e-9, atol=0)


class Letters(nn.Module):
    """Says of a token what its characters say together: the same of a text, however it is cut."""

    def __init__(self, tokenizer: Any, seed: int = 0) -> None:
        super().__init__()
        weights = np.random.default_rng(seed).normal(size=(256, 2))
        texts = [tokenizer.decode([one]).replace("##", "").strip().lower() for one in range(len(tokenizer))]
        sums = [np.logaddexp.reduce([weights[ord(one) % 256] for one in text], axis=0) if text else np.zeros(2)
                for text in texts]
        self.weight = nn.Parameter(torch.tensor(np.array(sums)))

    def forward(self, input_ids: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        start, end = self.weight[input_ids].unbind(-1)
        return {"start_logits": start, "end_logits": end}


def test_one_model_under_two_tokenizers_agrees_in_every_block() -> None:
    task, prepared = prepared_of("bytes", "wordpiece")
    batch = prepared.collate(list(range(len(prepared))))
    models = {Side.STUDENT: Letters(MAKERS["bytes"]()), Side.TEACHER: Letters(MAKERS["wordpiece"]())}
    said = {side: task.signals(one(**batch[side.value]), batch, side) for side, one in models.items()}
    assert isinstance(said[Side.TEACHER].logits, Dense)
    student, teacher = task.align(said[Side.STUDENT], said[Side.TEACHER], batch)
    assert isinstance(student.logits, Dense)
    assert isinstance(teacher.logits, Dense)
    for window, asked in enumerate(prepared.references):
        blocks, _ = blocks_of(batch, window, asked.context)
        for row in (2 * window, 2 * window + 1):
            p, q = (masses(one.logits[row].detach(), blocks) for one in (teacher.logits, student.logits))
            p, q = p / p.sum(), q / q.sum()  # [CLS] is no text
            torch.testing.assert_close(p @ (p / q).log(), torch.zeros(()).double(), rtol=0, atol=1e-12)


def test_what_is_stored_of_a_teacher_is_at_its_own_places_and_has_to_be_whole() -> None:
    task, prepared = prepared_of("bytes", "wordpiece")
    batch = prepared.collate([0, 1])
    said = Signals(logits=Dense(torch.randn(4, 64)))
    assert task.remembered(said, batch) is said
    few = Signals(logits=TopK(torch.zeros(4, 1, dtype=torch.long), torch.zeros(4, 1), torch.zeros(4)))
    with pytest.raises(CompatibilityError, match=r"Set cache: \{form: dense\}"):
        task.align(said, few, batch)


def test_models_with_other_tokens_are_judged_beside_each_other() -> None:
    task, prepared = prepared_of("bytes", "wordpiece")
    teacher, student = (Letters(MAKERS[one]()) for one in ("wordpiece", "bytes"))
    said = examine(task.exam(), {"teacher": Asked(teacher, Side.TEACHER), "student": Asked(student)}, prepared)
    texts = [[asked.context[int(one[1, 1]) : int(one[1, 2])].strip() for one, asked in zip(of.given, of.references)]
             for of in said.values()]
    assert all(text for several in texts for text in several)
    assert (task.exam().divergence(said["teacher"], said["student"]) > 0).all()
    assert task.comparable(MAKERS["bytes"](), MAKERS["wordpiece"]())
    assert not task.alike(MAKERS["bytes"](), MAKERS["wordpiece"]())


def test_a_passage_without_a_common_border_is_refused_or_left_out() -> None:
    """A word that one tokenizer has as a single unknown token and the other in more pieces than a window takes."""
    rows = answerers.rows(4)
    rows["context"][0] = "ann " + "q" * 60
    rows["answers"][0] = {"text": ["ann"], "answer_start": [0]}
    section = QuestionAnsweringData(train="x", max_length=32, longest_answer=4)
    split = Dataset.from_dict(rows)
    both = MAKERS["bytes"](), MAKERS["wordpiece"]()
    with pytest.raises(DataError, match=r"no border in common in windows of 32 \(data\.max_length\), in 1 of 4 .*: row 0"):
        QuestionAnswering.understand(section, {"train": split}).prepare(split, *both, training=True)
    skip = section.model_copy(update={"broken": "skip"})
    left = QuestionAnswering.understand(skip, {"train": split}).prepare(split, *both, training=True)
    assert set(left.keys.tolist()) == {1, 2, 3}
