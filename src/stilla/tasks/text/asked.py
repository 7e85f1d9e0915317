"""Questions as the data have them: a passage, a question, and the pieces of the passage that answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset

from stilla.data import are_unlabelled
from stilla.data.cells import written
from stilla.errors import DataError, all_at_once
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.classification import attempt
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.text.sections import QuestionAnsweringData

START = "answer_start"
"""How data call where an answer begins: within each answer, or a column beside one of texts."""
Piece = tuple[int, int]
"""Characters of a passage, the last not included."""


@dataclass(frozen=True)
class Question:
    """`answers`: pieces of the context, each right; none where the context does not answer the question. `labelled`: whether
    anybody has said so."""

    context: str
    question: str
    answers: tuple[Piece, ...]
    labelled: bool = True

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self.context[start:end] for start, end in self.answers)


def questions(section: QuestionAnsweringData, split: Dataset) -> tuple[dict[int, Question], dict[str, list[int]]]:
    """Those that can be used, by row; and rows by what is wrong with them, in words."""
    found: dict[int, Question] = {}
    wrong: dict[str, list[int]] = {}
    free = are_unlabelled(split)
    said = _said(section, split)
    asked = zip(*(_columns.values(split, name) for name in (section.context, section.question)))
    for row, ((context, question), answers) in enumerate(zip(asked, said, strict=True)):
        try:
            _refuse_empty(section, context, question)
            found[row] = (Question(context, question.strip(), (), labelled=False) if free[row]
                          else Question(context, question.strip(), _answers(section, context, answers)))
        except ValueError as error:
            wrong.setdefault(str(error), []).append(row)
    return found, wrong


def _said(section: QuestionAnsweringData, split: Dataset) -> list[Any]:
    """What the data have as answers, row by row; a column of texts with their starts beside it as of one answer each."""
    if section.answers not in split.column_names:  # all are unlabelled
        return [None] * len(split)
    said = _columns.values(split, section.answers)
    if START not in split.column_names or not _columns.is_text(split.features[section.answers]):
        return said
    starts = _columns.values(split, START)
    return [[] if not text or not str(text).strip() else [{"text": text, START: _whole(start)}]
            for text, start in zip(said, starts)]


def _whole(said: Any) -> Any:
    """The number that a text of CSV is."""
    return int(said) if isinstance(said, str) and said.strip().isdecimal() else said


def check(section: QuestionAnsweringData, splits: Mapping[str, Dataset]) -> dict[str, dict[int, Question]]:
    """The questions of all splits.

    Raises:
        DataError: columns that are not there or hold something else; then every question that cannot be used, by what is
            wrong with it, unless the recipe leaves those out.
    """
    train = splits.get("train", next(iter(splits.values())))
    for key, name in (("context", section.context), ("question", section.question)):
        _columns.existing(key, (name,), train, _columns.is_text, "text")
    _columns.existing("answers", (section.answers,), train)
    if absent := _columns.missing([section.context, section.question, section.answers], splits):
        raise all_at_once(absent, DataError)
    problems: list[str] = []
    known = {}
    for name, split in splits.items():
        known[name], wrong = questions(section, split)
        for why, rows in wrong.items():
            attempt(problems, refuse_or_leave_out, section, f"data.{name}: {why}, in {len(rows)} of {len(split)} examples",
                    rows_in_words(split, rows))
        if not known[name]:
            problems.append(f"data.{name}: there is no question left: all {len(split)} cannot be used.")
    if problems:
        raise all_at_once(problems, DataError)
    return known


def usable(section: QuestionAnsweringData, split: Dataset) -> dict[int, Question]:
    """The questions of a split, by row, without those that are left out.

    Raises:
        DataError: some cannot be used, and the recipe does not leave them out; or none is left.
    """
    found, wrong = questions(section, split)
    if wrong and section.broken == "refuse":
        raise all_at_once([f"data: {why}: {rows_in_words(split, rows)}." for why, rows in wrong.items()], DataError)
    if not found:
        raise DataError(f"there is no question left: all {len(split)} cannot be used.")
    return found


def asked_in(column: str, split: Dataset, known: Mapping[int, Question]) -> list[Question]:
    """The same questions in the words of another column.

    Raises:
        DataError: there are none, for some of them.
    """
    texts = _columns.values(split, column)
    if lacking := [row for row in known if not isinstance(texts[row], str) or not texts[row].strip()]:
        raise all_at_once([f"teacher.data: {column!r} is null or empty: {rows_in_words(split, lacking)}. Fill it, or leave "
                           "these examples out."], DataError)
    return [replace(one, question=texts[row].strip()) for row, one in known.items()]


def _refuse_empty(section: QuestionAnsweringData, context: Any, question: Any) -> None:
    for name, text in ((section.context, context), (section.question, question)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name!r} is null or empty")


def _answers(section: QuestionAnsweringData, context: str, said: Any) -> tuple[Piece, ...]:
    pieces = []
    for text, start in _pairs(section.answers, said):
        if not isinstance(text, str) or not text.strip() or type(start) is not int:
            raise ValueError(f"{section.answers!r} has an answer without text, or without a whole number as its start")
        if start < 0 or context[start : start + len(text)] != text:
            raise ValueError(f"an answer of {section.answers!r} does not stand in {section.context!r} where it says "
                             "(answer_start counts characters, from 0)")
        start += len(text) - len(text.lstrip())
        pieces.append((start, start + len(text.strip())))
    return tuple(dict.fromkeys(pieces))


def _pairs(column: str, said: Any) -> Sequence[tuple[Any, Any]]:
    """(text, start) of every answer, from a mapping of lists or a list of mappings."""
    if said is None:
        raise ValueError(f"{column!r} is null; expected [] where the passage does not answer the question")
    if isinstance(said, str):
        said = written(said)
    if isinstance(said, Mapping) and {"text", "answer_start"} <= said.keys():
        texts, starts = said["text"], said["answer_start"]
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            return list(zip(texts, starts))
    elif isinstance(said, list) and all(isinstance(one, Mapping) and {"text", "answer_start"} <= one.keys() for one in said):
        return [(one["text"], one["answer_start"]) for one in said]
    raise ValueError(f"{column!r} is not {{text: [...], answer_start: [...]}} with as many of both, nor a list of "
                     "{text, answer_start}")
