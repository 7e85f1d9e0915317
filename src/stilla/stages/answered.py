"""What comes of the answers of a teacher behind an address: which are learnt, what was left out, how good they are.

They become the student's targets, as texts do that a teacher here writes (`completions.py`); everything after that is the
usual training. The answers themselves lie in a store of their own, which no other stage touches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from stilla import data
from stilla.api import REJECTED, Question, Reply, Store
from stilla.data.unlabelled import MARK
from stilla.errors import DataError, counted
from stilla.recipe import Recipe
from stilla.recipe.api import Api, Told
from stilla.runtime.files import sealed, unsealed, write_whole
from stilla.runtime.imports import own_function
from stilla.runtime.narrate import say
from stilla.stages.asking import Example, api_of, measured, metrics_of, questions, store_of, to_ask, words_of
from stilla.stages.completions import KEEP, Completed
from stilla.stages.unlabelled import Pool
from stilla.tasks.base import Task
from stilla.tasks.shared.in_words import InWords
from stilla.tasks.shared.probable import logs

SUMMARY = "answers.json"
Kept = Sequence[tuple[int, str, Reply]]
"""What is learnt: example, text, reply."""


@dataclass(frozen=True)
class Summary:
    """What a run knows of its teacher. `asked`: questions about training examples, of whose answers so many are `learnt`.
    `left_out`: the others, by the reason. `tokens`: asked and answered, but for `uncounted` answers whose server does not say
    it. `chances`: of how many of those that are learnt the server said how likely each class is; None where it was not asked
    for. `reasons`: what a token of a reason counts, None where none are learnt. `spent`: None without a price; beside
    `unknown` answers of which nobody knows what they cost. `quality`: how good its answers are, in words."""

    model: str
    url: str
    asked: int
    learnt: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    cut: int = 0
    tokens: tuple[int, int] = (0, 0)
    spent: float | None = None
    quality: str = ""
    uncounted: int = 0
    unknown: int = 0
    chances: int | None = None
    reasons: float | None = None

    def sentences(self) -> list[str]:
        """For scores, report and model card."""
        out = ", ".join(f"{count:,} {why}" for why, count in self.left_out.items())
        said = (f"teacher: {self.model} behind {self.url}, known by its answers alone: {self.asked:,} asked for, "
                f"{self.learnt:,} learnt")
        said += f"; left out: {out}" if out else ""
        said += f"; {self.cut:,} were cut at the limit and are not taught as ended" if self.cut else ""
        if self.chances is not None:
            of = "all" if self.chances == self.learnt else f"{self.chances:,}"
            said += f"; of {of} of these how likely each class is" + ("" if of == "all" else ", the others as certain")
        if self.reasons is not None:
            said += f"; with their reasons, of which a token counts {self.reasons:g}"
        found = [f"{said}. {self._tokens()}; {self._cost()}"]
        return [*found, f"teacher: {self.quality}"] if self.quality else found

    def _tokens(self) -> str:
        said = f"{counted(self.tokens[0], 'token')} asked, {self.tokens[1]:,} answered"
        return f"{said}, and those of {counted(self.uncounted, 'answer')} not known" if self.uncounted else said

    def _cost(self) -> str:
        if self.spent is None:
            return "what that costs is not known without a price in the recipe"
        said = f"{self.spent:.4g} spent, by the prices in the recipe"
        return f"{said}, and what {counted(self.unknown, 'answer')} cost is not known" if self.unknown else said

    @classmethod
    def of(cls, folder: Path) -> Summary | None:
        """Of a run's folder; None where it was not written, or was changed."""
        try:
            plain = unsealed((folder / SUMMARY).read_text(encoding="utf-8"))
            return cls(**{**plain, "tokens": tuple(plain["tokens"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None


def completed(
    recipe: Recipe, task: Task, splits: Mapping[str, Dataset], pool: Pool | None, *, processor: Any, folder: Path
) -> None:
    """Have everything asked that is not answered yet, and write down what came of it. For the main process alone.

    Raises:
        StillaError: the server does not answer, or the ceiling is reached: the same again goes on.
    """
    about, judged = to_ask(recipe, task, splits, pool), measured(recipe, splits)
    asked = questions(recipe, task, about)
    exam = [] if judged is None else questions(recipe, task, judged, once=True)
    store = _answering(api_of(recipe), store_of(recipe), [one.question for one in (*asked, *exam)])
    why, kept = _sorted(recipe, task, about, asked, store)
    replies = [store.replies[one.question.key] for one in (*asked, *exam)]
    summary = Summary(
        recipe.teacher.model, api_of(recipe).url, len(asked), len(kept), dict(Counter(one for one in why if one)),
        sum(reply.why == "length" for _, _, reply in kept),
        (sum(one.asked or 0 for one in replies), sum(one.answered or 0 for one in replies)),
        None if api_of(recipe).price is None else store.spent,
        "" if judged is None else quality(recipe, task, judged, exam, store, processor),
        sum(None in (one.asked, one.answered) and one.why != REJECTED for one in replies), store.unknown,
        None if api_of(recipe).logprobs is None else sum(one is not None for one in _chances(task, kept)),
        None if (told := api_of(recipe).reasons) is None else told.weight)
    write_whole(folder / SUMMARY, sealed(asdict(summary)))
    for line in summary.sentences():
        say(line)


def _answering(api: Api, folder: Path, asked: Sequence[Question]) -> Store:
    """A store in which all of them are answered. Where they are, nobody else is kept from adding to it."""
    store = Store(folder, api.price)
    if all(one.key in store.replies for one in asked):
        return store
    from stilla.api.asking import ask  # needs what the extra `api` brings

    with store:
        done = ask(api, asked, store)
    if done.failures:
        listed = ", ".join(f"{count:,} × {why}" for why, count in done.failures.items())
        say(f"teacher: {counted(sum(done.failures.values()), 'request')} brought no answer and were sent again ({listed})")
    return store


def learnt(recipe: Recipe, task: Task, splits: Mapping[str, Dataset], pool: Pool | None) -> Completed:
    """All that the student learns from, of answers that are there.

    Raises:
        DataError: none can be used.
    """
    about, words = to_ask(recipe, task, splits, pool), words_of(task)
    asked = questions(recipe, task, about)
    store = Store(store_of(recipe))
    why, kept = _sorted(recipe, task, about, asked, store)
    if not kept:
        reasons = ", ".join(f"{count:,} {one}" for one, count in Counter(one for one in why if one).items())
        raise DataError(f"teacher.api: none of the {len(asked):,} answers can be learnt ({reasons}). Look at them in "
                        f"{store.file}, and at teacher.api (template, system, max_tokens, refusals) and completions")
    chosen = about.select([key for key, _, _ in kept])
    chosen = chosen.remove_columns([MARK]) if MARK in chosen.column_names else chosen
    said = None if api_of(recipe).logprobs is None else _certain_or_not(recipe, task, kept)
    texts = words.answered(chosen, [text for _, text, _ in kept], [reply.why == "length" for _, _, reply in kept])
    told = api_of(recipe).reasons
    if told is not None:
        why_so = [parted(reply.text.strip(), told)[0] for _, _, reply in kept]
        texts = data.joined(texts, words.reasoned(chosen, told.asked, why_so, told.weight)).remove_columns([MARK])
    if not recipe.all_written and "train" in splits:
        texts = data.joined(words.beside_answers(splits["train"]), texts).remove_columns([MARK])
        labels = None if said is None else words.chances_of_labels(splits["train"])
        said = said if said is None or labels is None else np.concatenate([labels, said])
    return Completed(texts, len(asked) * (1 if told is None else 2), None if said is None else logs(said))


def _chances(task: Task, kept: Kept) -> list[NDArray[np.float64] | None]:
    """Of every answer how likely each class is, None where its tokens do not say it."""
    words = words_of(task)
    return [None if reply.likely is None else words.chances(reply.likely, text) for _, text, reply in kept]


def _certain_or_not(recipe: Recipe, task: Task, kept: Kept) -> NDArray[np.float64]:
    """(answers, classes) the same, where nothing is said of others the class that was named is certain.

    Raises:
        DataError: of no answer anything is said.
    """
    found, names = _chances(task, kept), task.class_names()
    if not any(one is not None for one in found):
        raise DataError(f"teacher.api.logprobs: {api_of(recipe).url} gave no log-probabilities that fit its answers; leave "
                        "logprobs out to learn the classes alone, or ask a server and a model that give them (models that "
                        "think first do not)")
    return np.stack([np.eye(len(names))[names.index(text)] if one is None else one
                     for one, (_, text, _) in zip(found, kept, strict=True)])


def _sorted(
    recipe: Recipe, task: Task, split: Dataset, asked: Sequence[Example], store: Store
) -> tuple[list[str | None], Kept]:
    """Why answers are left out, None where they are not; and what is learnt of the others: example, text, reply."""
    section, words, api = recipe.completions, words_of(task), api_of(recipe)
    assert section is not None  # it is settled
    keep = None if section.keep is None else own_function(section.keep, KEEP)
    reasons, kept, known = list[str | None](), list[tuple[int, str, Reply]](), set[tuple[int, str]]()
    for one in asked:
        reply = store.replies[one.question.key]
        why, text = _why_not(reply, api, words)
        if why in (None, "not understood") and section.cut == "drop" and reply.why == "length":
            why = "cut"
        if why is None and words.once and (one.key, text) in known:
            why = "repeated"
        if why is None and keep is not None and not keep(words.source_of(split, one.key), text):
            why = f"not kept by {section.keep}"
        if why is None:
            known.add((one.key, text))
            kept.append((one.key, text, reply))
        reasons.append(why)
    return reasons, kept


def _why_not(reply: Reply, api: Api, words: InWords) -> tuple[str | None, str]:
    """Why an answer says nothing, None if it does; and what."""
    text = reply.text.strip()
    if reply.why == REJECTED:
        return "rejected by the server", ""
    if reply.refusal or text.startswith(tuple(api.refusals)):
        return "refused", ""
    if not text:
        return "empty", ""
    if api.reasons is not None:
        reason, text = parted(text, api.reasons)
        if not reason or not text:
            return "without a reason and an answer", ""
    said = words.meant(text, cut=reply.why == "length")
    return ("not understood", "") if said is None else (None, said)


def parted(text: str, told: Told) -> tuple[str, str]:
    """The reason and the answer behind it; an empty one where it is not there."""
    reason, _, answer = text.rpartition(told.answer)
    return reason.strip(), answer.strip()


# --- how good it is ---


def quality(
    recipe: Recipe, task: Task, split: Dataset, exam: Sequence[Example], store: Store, processor: Any
) -> str:
    """How good the teacher's answers to labelled examples are, in words; refused or not understood is wrong."""
    words, api, said = words_of(task), api_of(recipe), dict[int, str | None]()
    for one in exam:
        why, text = _why_not(store.replies[one.question.key], api, words)
        said[one.key] = None if why else text
    return words.judged(split, said, processor, metrics_of(recipe, task))
