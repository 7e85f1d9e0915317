"""What is asked about pictures, and what is answered: captions, answers to questions, conversations, all in one form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from datasets import Dataset, List, Value, concatenate_datasets
from numpy.typing import NDArray

from stilla.data import with_nulls
from stilla.errors import DataError, all_of, one_of
from stilla.tasks.language import talks
from stilla.tasks.language.columns import TALKS, is_talk
from stilla.tasks.language.talks import OPEN, PICTURE, Talk, UnreadableError
from stilla.tasks.language.translations import CUT, with_cuts
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared import left_out
from stilla.tasks.shared.bound import bound
from stilla.tasks.shared.columns import columns_of, existing, is_text
from stilla.tasks.vision_text.album import Album, holds_album, undecoded
from stilla.tasks.vision_text.captions import CAPTIONS, holds_texts
from stilla.tasks.vision_text.sections import ImageTextToTextData

PICTURES = (*_columns.IMAGES, "images", "pictures", "photos")
ANSWERS = ("completion", "answer", "answers", "response", "output", *CAPTIONS)
QUESTIONS = ("prompt", "question", "query", "instruction", "input")
_NEW = "stilla_new"


@dataclass(frozen=True)
class Layout:
    """Where it stands. `image`: the column of pictures. `source`: what else a row has; `columns`: the captions', the
    questions' and the answers', or the conversations'. `instruction`: asked where no column asks."""

    image: str
    source: Literal["captions", "questions", "messages"]
    columns: tuple[str, ...]
    instruction: str = ""

    @property
    def all(self) -> tuple[str, ...]:
        return (self.image, *self.columns)

    def resolved(self) -> dict[str, Any]:
        """As the recipe would say it."""
        names = {"captions": ("completion",), "questions": ("prompt", "completion"), "messages": ("messages",)}
        return {"image": self.image, **dict(zip(names[self.source], self.columns))}

    def read(
        self, split: Dataset, unanswered: Sequence[bool] | NDArray[np.bool_]
    ) -> list[tuple[Talk, ...] | UnreadableError]:
        """Of each row the conversations to learn about its pictures, one for each of several captions; or why there is none.

        unanswered: the rows to which an answer is only asked for.
        """
        album = Album.of(split, self.image)
        return [_attempt(one, len(album.stored(row))) for row, one in enumerate(self._rows(split, unanswered))]

    def _rows(
        self, split: Dataset, free: Sequence[bool] | NDArray[np.bool_]
    ) -> Iterator[Talk | UnreadableError | tuple[Any, Sequence[str]]]:
        if self.source == "messages":
            yield from talks.read(split, self.columns, pictures=True)
            return
        asked, said = self._asked(split), _columns.values(split, self.columns[-1])
        for question, answers, open_ in zip(asked, said, free, strict=True):
            some = [answers] if isinstance(answers, str) else answers or []
            there = [one for one in some if one and one.strip()]
            yield question, there or ([OPEN] if open_ else [])

    def _asked(self, split: Dataset) -> list[str | None]:
        if self.source == "questions":
            return _columns.values(split, self.columns[0])
        return [self.instruction] * len(split)

    # --- other answers ---

    def answered(self, split: Dataset, texts: Sequence[str], cut: Sequence[bool]) -> Dataset:
        """The same rows with these answers in place of their own."""
        if self.source == "messages":
            return with_cuts(talks.answered(split, self.columns, texts, pictures=True), cut)
        column = self.columns[-1]
        feature = split.features[column]
        written: list[Any] = [[one] for one in texts] if isinstance(feature, List) else list(texts)
        both = split.with_format(None).add_column(CUT, list(cut)).add_column(_NEW, written, feature=feature)
        return both.remove_columns([column]).rename_column(_NEW, column)

    def unlabelled(
        self, pool: Dataset, called: Mapping[str, str], answer: Any, others: Layout | None = None
    ) -> Dataset:
        """Pictures (with questions, or conversations up to an open end) that nobody has answered. answer: the type of the
        answers' column. others: what teachers read instead, which has to be there too."""
        first = () if self.source == "captions" else (self.columns[0],)
        answers, talking = self.columns[len(first) :], self.source == "messages"
        images = (self.image,) if others is None else tuple(dict.fromkeys((self.image, others.image)))
        wanted = (self.image, *first, *self._beside(others))
        found = bound(pool, wanted, called, lambda feature: talking or holds_album(feature) or is_text(feature),
                      f"pictures and {self.source}" if first else "pictures", self._usual, answers)
        for image in images:
            if not holds_album(found.features[image]):
                raise DataError(f"data.unlabelled: {image!r} holds no pictures. {columns_of(pool)}")
            found = undecoded(found, image)
        if talking:
            pictures = found.select_columns([*images])
            return concatenate_datasets([pictures, talks.unanswered(found, self.columns[0])], axis=1)
        return with_nulls(found, {answers[0]: answer})

    def _usual(self, pool: Dataset, fitting: Sequence[str]) -> Sequence[str] | None:
        pictures = [name for name in fitting if holds_album(pool.features[name])]
        if len(pictures) != 1:
            pictures = [name for name in pictures if name.lower() in PICTURES]
        others = [] if self.source == "captions" else [
            name for name in fitting if name not in pictures and (
                is_talk(pool, name) if self.source == "messages" else name.lower() in QUESTIONS)]
        return [*pictures, *others] if (len(pictures), len(others)) == (1, int(self.source != "captions")) else None

    def _beside(self, others: Layout | None) -> tuple[str, ...]:
        """Columns that these have and this has not."""
        return () if others is None else tuple(name for name in others.all if name not in self.all)

    def beside(self, split: Dataset, others: Layout | None = None) -> Dataset:
        """What is read of labelled rows, in the form in which others can stand beside them."""
        some = undecoded(split.select_columns([*self.all, *self._beside(others)]), self.image)
        if others is not None:
            some = undecoded(some, others.image)
        return talks.as_json(some, self.columns) if self.source == "messages" else some


def _attempt(row: Talk | UnreadableError | tuple[Any, Sequence[str]], pictures: int) -> tuple[Talk, ...] | UnreadableError:
    if isinstance(row, UnreadableError):
        return row
    if isinstance(row, Talk):
        found: tuple[Talk, ...] = (row,)
    else:
        question, answers = row
        if question is None or not answers:
            return UnreadableError("is null or empty")
        if PICTURE in question:
            return UnreadableError(f"has the character {ord(PICTURE):#x} in a text, which stands for a picture here")
        found = tuple(Talk(({"role": "user", "content": question.replace("<image>", PICTURE)},
                            {"role": "assistant", "content": one}), (1,)) for one in answers)
    if not pictures:
        return UnreadableError("stands beside no picture (of texts alone, causal-lm learns)")
    placed = tuple(_placed(one, pictures) for one in found)
    if (places := placed[0].pictures) != pictures:
        return UnreadableError(f"has {places} places for the {pictures} pictures beside it")
    return placed


def _placed(talk: Talk, pictures: int) -> Talk:
    """Pictures whose places nobody says come first in what is first asked."""
    turn = next((turn for turn, one in enumerate(talk.messages) if one["role"] == "user"), None)
    if talk.pictures or turn is None:
        return talk
    messages = list(talk.messages)
    messages[turn] = {**messages[turn], "content": PICTURE * pictures + str(messages[turn].get("content", ""))}
    return replace(talk, messages=tuple(messages))


# --- columns ---


def layout(section: ImageTextToTextData, train: Dataset) -> Layout:
    """Raises:
        DataError: no such column, half of what is needed, or the names leave it open.
    """
    image = _columns.image(section, train, (), holds_album)
    if section.messages is not None:
        given = [name for name in ("prompt", "completion", "instruction") if getattr(section, name)]
        if given:
            raise DataError(f"data.{given[0]}: conversations ask and answer themselves (data.messages); leave it out.")
        existing("messages", (section.messages,), train, lambda _: is_talk(train, str(section.messages)),
                 "lists of {role, content}")
        return Layout(image, "messages", (section.messages,))
    if section.prompt is None and section.completion is None:
        talking = [name for name in train.column_names if is_talk(train, name)]
        usual = [name for name in talking if name.lower() in TALKS] or talking
        if len(usual) == 1 and not section.instruction:
            return _whole(train, Layout(image, "messages", (usual[0],)))
    answer = _column(section.completion, "completion", train, ANSWERS, holds_texts, ())
    if answer is None:
        raise DataError("data.completion: which column is said of the pictures? None is called "
                        f"{one_of(['caption', 'text', 'answer'])}, or holds conversations. {columns_of(train)} Set "
                        "data.completion, or data.messages.")
    guessed = () if section.completion is not None or section.instruction else QUESTIONS
    question = _column(section.prompt, "prompt", train, guessed, is_text, (answer,))
    if question is not None and section.instruction:
        raise DataError("data.instruction: data.prompt asks about every picture already; leave one of the two out.")
    found = Layout(image, "captions", (answer,), section.instruction) if question is None else \
        Layout(image, "questions", (question, answer))
    return found if section.completion is not None else _whole(train, found)


def _whole(train: Dataset, found: Layout) -> Layout:
    """What was guessed, if it leaves out nothing that may be a part of the examples."""
    left_out.refuse(train, found.all, "Name the columns that are meant: data.completion, with data.prompt where it answers "
                                      "something; or data.messages. What they do not name is then left out.", other="say")
    return found


def _column(
    wanted: str | None, key: str, train: Dataset, usual: Sequence[str], fits: Any, taken: Sequence[str]
) -> str | None:
    """The column that the recipe names, or the one whose name says it; None where none does."""
    if wanted is not None:
        return existing(key, (wanted,), train, fits, "text")[0]
    lower = {name.lower(): name for name in reversed(train.column_names) if name not in taken and fits(train.features[name])}
    known = [lower[name] for name in usual if name in lower]
    if len(known) > 1:
        raise DataError(f"data.{key}: which column is it? {all_of([repr(one) for one in known])} could be it. "
                        f"{columns_of(train)} Set data.{key}.")
    return known[0] if known else None


def answers_feature(train: Dataset, layout: Layout) -> Any:
    """Of what type the column of answers is."""
    return train.features[layout.columns[-1]] if layout.source != "messages" else Value("string")
