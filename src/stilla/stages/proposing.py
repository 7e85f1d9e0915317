"""Words that a masked language model proposes for the places of others (`data.augment: {kind: contextual}` of a recipe).

Asked once of every text that the student learns from, part by part into the run's folder, so that drawing among them costs a
training nothing; a run that was killed goes on with the next part and ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForMaskedLM

from stilla.errors import CompatibilityError, StillaError, all_at_once
from stilla.models.fingerprint import of_model, of_processor
from stilla.models.heads import tapped
from stilla.recipe import ModelSource, Recipe
from stilla.runtime.differences import fingerprint
from stilla.runtime.narrate import say
from stilla.runtime.processes import on_main, processes
from stilla.signals import Head
from stilla.stages.clocks import timed
from stilla.stages.parts import Parts
from stilla.stages.unlabelled import together
from stilla.tasks.base import Loaded, Task
from stilla.tasks.language.models import language_model
from stilla.tasks.text.proposals import SCHEMA, Proposals, Rewords
from stilla.tasks.text.sections import Contextual
from stilla.tasks.text.tokens import tokenizer_for
from stilla.tasks.text.words import Words

if TYPE_CHECKING:  # a check asks here too, and imports nothing that trains
    from stilla.stages.place import Place

WHERE, STAGE = "data.augment", "proposals"
SPARSE = 7
"""Every seventh word of a text is hidden at a time, about as many as masked language models were trained with (15 %)."""
PIECES = 4
"""Tokens of the longest word that gives way: longer ones are names, or text that is written without spaces."""
TEXTS, FORWARD = 32, 64
"""Texts of a batch; sequences of a forward, in which a text stands with other words hidden each time."""
MASK, PADDING = -1, -2
"""Where a mask and padding stand among tokens."""


def problems(recipe: Recipe, task: Task) -> list[str]:
    """Why no words can be proposed for this recipe."""
    if section_of(task) is None or recipe.teacher.api is None:
        return []
    return [f"{WHERE}: contextual asks the teacher about other words in every pass, and a teacher behind an address answers "
            "once; expected none"]


def section_of(task: Task) -> Contextual | None:
    return task.contextual if isinstance(task, Rewords) else None


def source_of(section: Contextual) -> ModelSource:
    """Where the model comes from that proposes."""
    return ModelSource(model=section.model, revision=section.revision)


def known(place: Place) -> Place:
    """The place with a task that knows what is proposed for its texts, if the recipe wants that. The stage is done first,
    where it is not.

    Raises:
        CompatibilityError: the model is none that proposes words, or proposes none for these texts; the teacher cannot be
            asked about them.
    """
    section, task, folder = section_of(place.task), place.task, place.folder.proposals
    if section is None or not isinstance(task, Rewords):
        return place
    if wrong := problems(place.recipe, task):
        raise CompatibilityError(wrong[0])
    texts, proposing = texts_of(task, together(task, place.splits, place.pool)), Proposing.of(section)
    inputs = proposing.inputs(texts)
    if place.to_do(STAGE, inputs, folder, by_parts=True):
        with timed(place.folder.append_log, STAGE):
            proposing.write(texts, Parts(folder, SCHEMA), inputs)
        on_main(lambda: place.folder.finish(STAGE, inputs, folder))
    parts = Parts(folder, SCHEMA)
    return replace(place, task=task.knowing(told(Proposals.of(parts.table(), parts.settings()["spellings"]), section)))


def told(proposals: Proposals, section: Contextual) -> Proposals:
    """The same; says how many words may give way.

    Raises:
        CompatibilityError: none may, so that nothing would ever be changed.
    """
    words, texts = len(proposals.words), len(proposals.numbers)
    if not words:
        raise CompatibilityError(f"{WHERE}: contextual: {section.model} reads none of the {texts:,} texts in words of up to "
                                 f"{PIECES} of its tokens (are they written without spaces?), so that no word would give "
                                 "way. Use augment: light or none")
    say(f"{STAGE}: {words:,} words of {texts:,} texts may give way")
    return proposals


def texts_of(task: Task, examples: Dataset) -> list[str]:
    """The different texts of these examples."""
    return list(dict.fromkeys(text for trace in task.traces(examples) for text in trace
                              if isinstance(text, str) and text.strip()))


@dataclass(frozen=True)
class Hidden:
    """A text as the model reads it, with the places of its words that may give way: characters, and tokens."""

    ids: list[int]
    characters: list[tuple[int, int]]
    tokens: list[tuple[int, int]]

    def rounds(self) -> Iterator[tuple[Sequence[int], list[int]]]:
        """Some of the words at a time, and the tokens with one mask in the place of each."""
        for first in range(min(SPARSE, len(self.tokens))):
            words = range(first, len(self.tokens), SPARSE)
            yield words, self._without(words)

    def _without(self, words: Sequence[int]) -> list[int]:
        ids, end = list[int](), 0
        for word in words:
            begin, after = self.tokens[word]
            ids += [*self.ids[end:begin], MASK]
            end = after
        return [*ids, *self.ids[end:]]


@dataclass(frozen=True)
class Proposing:
    """A masked language model, asked for words. What it proposes for a text is the same in whatever batch, but for
    rounding."""

    section: Contextual
    model: Loaded

    @classmethod
    def of(cls, section: Contextual) -> Proposing:
        """Raises:
            CompatibilityError: it is no masked language model, or its tokenizer does not say where words are.
        """
        source = source_of(section)
        try:
            model = language_model(source, AutoModelForMaskedLM, labelled=True)
            tokenizer = tokenizer_for(source, model)
        except StillaError as error:
            raise all_at_once([f"{WHERE}.model: {one}" for one in error.problems], type(error)) from error
        made = cls(section, Loaded(model, tokenizer, section.model))
        lacking = "mask token" if tokenizer.mask_token_id is None else None if tokenizer.is_fast else "fast form"
        if lacking is not None:
            raise CompatibilityError(f"{WHERE}.model: {section.model}: its {type(tokenizer).__name__} has no {lacking}; "
                                     "expected a masked language model whose tokenizer says where words are")
        if made._others < 1:
            raise CompatibilityError(f"{WHERE}.model: {section.model}: its tokenizer has no tokens that are whole words; "
                                     "expected a masked language model that reads words")
        return made

    @cached_property
    def words(self) -> tuple[Tensor, list[str]]:
        """Tokens that are whole words by themselves, and how these are spelled."""
        tokenizer = self.model.processor
        special, tokens = set(tokenizer.all_special_ids), sorted(tokenizer.get_vocab().items(), key=lambda one: one[1])
        spelled = [(number, tokenizer.convert_tokens_to_string([token]).strip())
                   for token, number in tokens if number not in special]
        spelled = [(number, word) for number, word in spelled if _may_give_way(word)]
        read = tokenizer([f" {word}" for _, word in spelled], add_special_tokens=False)["input_ids"] if spelled else []
        whole = [one for one, ids in zip(spelled, read, strict=True) if ids == [one[0]]]
        return torch.tensor([number for number, _ in whole], dtype=torch.int64), [word for _, word in whole]

    @cached_property
    def _same(self) -> dict[str, list[int]]:
        """By a word in small letters which of the words it is."""
        found: dict[str, list[int]] = {}
        for place, word in enumerate(self.words[1]):
            found.setdefault(word.casefold(), []).append(place)
        return found

    @cached_property
    def _others(self) -> int:
        """How many words there are at least beside any one."""
        return len(self.words[1]) - max(map(len, self._same.values()), default=0)

    def inputs(self, texts: Sequence[str]) -> dict[str, Any]:
        """All that the proposals depend on."""
        return {**self.section.model_dump(mode="json", include={"top", "temperature"}), "texts": fingerprint(texts),
                "model": of_model(self.model.model), "tokenizer": of_processor(self.model.processor)}

    def write(self, texts: Sequence[str], parts: Parts, stamp: dict[str, Any]) -> None:
        """Every process of a launched run calls this and writes its share."""

        def begin(missing: int) -> None:
            say(f"{STAGE}: {self.section.model} proposes words for {missing:,} texts")

        # texts of one length together: little is spent on padding
        order = np.argsort([-len(text) for text in texts], kind="stable").tolist()
        batches = [order[start : start + TEXTS] for start in range(0, len(order), TEXTS)]
        parts.make(batches, lambda numbers: self.rows(texts, numbers), stamp, title=STAGE, begin=begin,
                   beside={"spellings": self.words[1]})

    def rows(self, texts: Sequence[str], numbers: Sequence[int]) -> list[dict[str, Any]]:
        """What is proposed for the texts of these numbers, in the form of `SCHEMA`."""
        read = [self.hidden(texts[number]) for number in numbers]
        asked = [(text, *one) for text, hidden in enumerate(read) for one in hidden.rounds()]
        proposed: dict[tuple[int, int], tuple[list[int], list[float]]] = {}
        for some in (asked[start : start + FORWARD] for start in range(0, len(asked), FORWARD)):
            places = [(text, word) for text, words, _ in some for word in words]
            there = [texts[numbers[text]][slice(*read[text].characters[word])] for text, word in places]
            proposed |= zip(places, self._chosen(self._scores([ids for _, _, ids in some]), there), strict=True)
        return [{"key": number, "text": texts[number], "spans": [end for span in hidden.characters for end in span],
                 "words": [one for word in range(len(hidden.tokens)) for one in proposed[text, word][0]],
                 "chances": [one for word in range(len(hidden.tokens)) for one in proposed[text, word][1]]}
                for text, (number, hidden) in enumerate(zip(numbers, read, strict=True))]

    def hidden(self, text: str) -> Hidden:
        """Where its words are, as far as the model reads."""
        tokenizer = self.model.processor
        encoded = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length, return_offsets_mapping=True)
        # some tokenizers count the space before a word as a part of it
        pieces = [(start + len(text[start:end]) - len(text[start:end].lstrip()), end)
                  for start, end in encoded["offset_mapping"]]
        begins, words = {start: place for place, (start, end) in enumerate(pieces) if end > start}, Words.split(text, "words")
        ends = {end: place + 1 for place, (start, end) in enumerate(pieces) if end > start}
        found = [((start, end), (begins[start], ends[end])) for start, end in zip(words.starts, words.ends)
                 if start in begins and end in ends and _may_give_way(text[start:end])]
        found = [one for one in found if 0 < one[1][1] - one[1][0] <= PIECES]
        return Hidden(encoded["input_ids"], [one for one, _ in found], [one for _, one in found])

    def _scores(self, asked: Sequence[Sequence[int]]) -> Float[Tensor, "masks words"]:
        """Of every whole word in the place of each mask of these tokens."""
        device, tokenizer = processes().device, self.model.processor
        model, chosen = self.model.model.to(device), self.words[0].to(device)
        ids = pad_sequence([torch.tensor(one) for one in asked], batch_first=True, padding_value=PADDING)
        tokens = ids.masked_fill(ids == MASK, tokenizer.mask_token_id).masked_fill(ids == PADDING, tokenizer.pad_token_id)
        with torch.no_grad(), tapped(model) as tap:
            model(input_ids=tokens.to(device), attention_mask=(ids != PADDING).long().to(device))
        head, hidden = tap.head, tap.hidden[(ids == MASK).to(device)]
        bias = None if head.bias is None else head.bias[chosen]
        return Head(head.weight[chosen], bias, head.scale, head.softcap).logits(hidden).float().cpu()

    def _chosen(
        self, scores: Float[Tensor, "masks words"], there: Sequence[str]
    ) -> Iterator[tuple[list[int], list[float]]]:
        """For each place the likeliest words but the one that is there, however it is spelled, and how likely each is
        drawn."""
        for row, word in enumerate(there):
            scores[row, self._same.get(word.casefold(), [])] = -torch.inf
        best = (scores / self.section.temperature).topk(min(self.section.top, self._others), dim=1)
        return zip(best.indices.tolist(), best.values.softmax(1).tolist(), strict=True)


def _may_give_way(word: str) -> bool:
    """Whether it is a word of letters: numbers and signs stay."""
    return word[:1].isalpha() and not any(one.isdigit() or one == "_" for one in word) and not any(map(str.isspace, word))
