"""Conversations about pictures as tokens: the chat template's text (or plain prompts), with the tokens of each picture in the
place that the template leaves for it, and which of all these tokens are learnt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stilla.errors import CompatibilityError, DataError
from stilla.tasks.language import documents
from stilla.tasks.language.conversations import Template
from stilla.tasks.language.ends import Ends
from stilla.tasks.language.talks import PICTURE, Talk
from stilla.tasks.text.sequences import Sequence_
from stilla.tasks.vision_text.looker import Looker

logger = logging.getLogger(__name__)

Span = tuple[int, int]
Size = tuple[int, int]


@dataclass(frozen=True)
class Asked:
    """A conversation with where it comes from. `row`: of its split. `sizes`: of its pictures. `cut`: its last answer has no
    end, because a limit cut it when it was written."""

    talk: Talk
    row: int
    sizes: Sequence[Size]
    cut: bool = False


class Script:
    """How one model reads conversations about pictures.

    Raises:
        CompatibilityError: its chat template is of no use (`Template`).
    """

    def __init__(self, looker: Looker) -> None:
        self.looker = looker
        self.template = Template(looker.tokenizer, parts=True) if looker.tokenizer.chat_template else None

    def learnt(self, some: Sequence[Asked], *, skip: bool) -> Iterator[tuple[int, Sequence_]]:
        """Each conversation by its number: tokens, and which of them are to be learnt. `skip`: leave out what the template
        refuses.

        Raises:
            DataError: the template refuses a conversation, or a text has a picture's token in it.
            CompatibilityError: the template has no place for pictures, or there is none and this is no single answer.
        """
        yield from self._each(some, self._plain if self.template is None else self._templated, skip=skip)
        if self.template is not None:
            self.template.tell()

    def asked(self, some: Sequence[Asked], *, skip: bool) -> Iterator[tuple[int, Sequence_]]:
        """The same up to where the last answer begins, of which nothing is to be learnt; errors as for `learnt`."""
        yield from self._each(some, self._before, skip=skip)

    def _each(
        self, some: Sequence[Asked], make: Callable[[Asked], Sequence_], *, skip: bool
    ) -> Iterator[tuple[int, Sequence_]]:
        def checked(number: int) -> Sequence_:
            return self._refuse_other_places(make(some[number]), some[number])

        if self.template is not None:
            talks, numbers = [one.talk for one in some], np.arange(len(some))
            for made, number in self.template.each(talks, numbers, lambda _, number: checked(number), skip=skip):
                yield number, made
            return
        refused: list[str] = []
        for number in range(len(some)):
            try:
                yield number, checked(number)
            except DataError as error:
                if not skip:
                    raise
                refused.append(str(error))
        if refused:
            logger.warning("%d of %d examples are left out; the first: %s", len(refused), len(some), refused[0])

    def _refuse_other_places(self, made: Sequence_, one: Asked) -> Sequence_:
        """Whatever a text says, a token of pictures stands only where one does: elsewhere there is nothing to be seen."""
        if int(self.looker.marks(made[0]).sum()) != sum(self.looker.number(size) for size in one.sizes):
            raise DataError(f"data: a text of row {one.row} has a token in it that stands for pictures (such as "
                            f"{self.looker.place!r}), where there is none. Take it out")
        return made

    # --- with a template ---

    def _templated(self, one: Asked) -> Sequence_:
        assert self.template is not None
        if one.cut:
            before, _ = self._before(one)
            return _joined(before, self._said(str(one.talk.messages[one.talk.asked]["content"])))
        text, spans = self.template.learnt(one.talk, one.row)
        return self.template.within(*self._filled(text, spans, one))

    def _before(self, one: Asked) -> Sequence_:
        if self.template is None:
            ids = np.array(self._prompt(one), np.int32)
            return ids, np.zeros(len(ids), np.bool_)
        return self.template.within(*self._filled(self.template.before(one.talk, one.row), [], one))

    # --- without ---

    def _plain(self, one: Asked) -> Sequence_:
        tokenizer, ends = self.looker.tokenizer, Ends.of(self.looker.tokenizer)
        said = self._said(ends.begun_once(ends.unended(str(one.talk.messages[-1]["content"]))))
        end = [] if one.cut or tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        return _joined(self._prompt(one), [*said, *end])

    def _prompt(self, one: Asked) -> list[int]:
        if [message["role"] for message in one.talk.messages] != ["user", "assistant"]:
            raise CompatibilityError(f"data.messages: {type(self.looker.whole).__name__} has no chat template, and "
                                     f"conversation {one.row} is more than a question and its answer. Use the processor of "
                                     "a chat model (`processor`)")
        text = str(one.talk.messages[0]["content"]).replace(PICTURE, self.looker.place)
        return next(documents.given(self.looker.tokenizer, [self._filled(text, [], one)[0]]))

    def _said(self, text: str) -> list[int]:
        ids: list[int] = self.looker.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    # --- pictures in a text ---

    def _filled(self, text: str, spans: Sequence[Span], one: Asked) -> tuple[str, list[Span]]:
        """The text with what stands for each picture in its place, and where the spans are then."""
        pieces = text.split(self.looker.place)
        found, wanted = len(pieces) - 1, len(one.sizes)
        if found < wanted:
            raise CompatibilityError(f"data: the chat template writes {found} places {self.looker.place!r} for the {wanted} "
                                     f"pictures of conversation {one.row}: they would not be seen. Use a processor whose "
                                     "template has a place for pictures (`processor`)")
        if found > wanted:
            raise DataError(f"data: {self.looker.place!r} stands in a text of row {one.row} itself, where it would be taken "
                            "for a picture. Take it out")
        moves, made = list[tuple[int, int]](), pieces[0]
        for size, piece in zip(one.sizes, pieces[1:], strict=True):
            picture = self.looker.stands_for(size)
            old = len(made) - sum(more for _, more in moves) + len(self.looker.place)
            moves.append((old, len(picture) - len(self.looker.place)))
            made += picture + piece
        return made, [(_moved(start, moves), _moved(end, moves)) for start, end in spans]


def _moved(place: int, moves: Sequence[tuple[int, int]]) -> int:
    """Where a character of the text stands once pictures were written into it."""
    return place + sum(more for end, more in moves if place >= end)


def _joined(before: Sequence[int] | NDArray[np.int32], said: Sequence[int]) -> Sequence_:
    return np.array([*before, *said], np.int32), np.repeat([False, True], [len(before), len(said)])
