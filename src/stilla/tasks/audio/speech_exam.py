"""What recognisers of speech are asked, and how it is judged: edits of words and characters against what was said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.signals import Batch, Side
from stilla.tasks.answers import Answers, Decisions, Given, Metric
from stilla.tasks.audio.letters import Scribe
from stilla.tasks.exam import ForwardExam, any_of
from stilla.tasks.language.writing import WrittenExam
from stilla.tasks.shared.strings import find
from stilla.tasks.shared.transcripts import aligned, differing, normalised
from stilla.views import Mark, Sound, Text

Heard = tuple[str, float | None]
"""A text, and the mean of KL(teacher || model) over its frames, in nats; None where no teacher was asked beside."""


@dataclass(frozen=True)
class SpeechExam(ForwardExam):
    """Answers are `Heard`, references what was said; what classes stand for comes with a batch.

    order: for each of the student's classes the teacher's, where the teacher is asked beside. shown: an example's sound.
    """

    order: NDArray[np.int64] | None
    shown: Callable[[Dataset, int], str]

    units: ClassVar[str] = "words"
    beside: ClassVar[bool] = True

    def outputs(self, outputs: Any) -> Float[Tensor, "batch frames classes"]:
        logits: Tensor = outputs if isinstance(outputs, Tensor) else outputs["logits"]
        return logits.float()

    def ask(self, forward: Any, batch: Batch, side: Side) -> Float[Tensor, "batch frames classes"]:
        inputs = batch[side.value]
        logits = self.outputs(forward(**inputs) if isinstance(forward, nn.Module) else forward(inputs))
        if side is Side.TEACHER and self.order is not None:
            logits = logits[..., torch.from_numpy(self.order).to(logits.device)]
        return logits

    def given(self, said: Tensor, batch: Batch, teacher: Tensor | None) -> list[Heard]:
        scribe: Scribe = batch["scribe"]
        own = frames_in(batch, said)
        best = said.argmax(-1).cpu().numpy()
        logs = said.log_softmax(-1)
        apart: Sequence[float | None] = [None] * len(best)
        if teacher is not None:
            apart = _divergences(teacher.to(said.device).log_softmax(-1), logs, own)
        return [(scribe.heard(row[:length]), far) for row, length, far in zip(best, own, apart, strict=True)]

    def metrics(self) -> tuple[Metric, ...]:
        return speech_metrics()

    def decisions(self, answers: Answers) -> Decisions:
        return words_of([heard for heard, _ in answers.given], answers.references)

    def divergence(self, teacher: Answers, answers: Answers) -> NDArray[np.float64] | None:
        """Of every utterance, the mean of its frames."""
        far = [one for _, one in answers.given if one is not None]
        return np.array(far) if len(far) == len(answers) else None

    def constant(self, answers: Answers) -> list[Heard]:
        """Nothing: an error rate of 1."""
        return [("", None)] * len(answers)

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Sound:
        of = any_of(answers)
        heard = {name: one.given[example][0] for name, one in answers.items()}
        return compared(self.shown(split, int(of.keys[example])), str(of.references[example]), heard, place)

    def named(self, decision: Any) -> str:
        return named(decision)


@dataclass(frozen=True)
class DictationExam(WrittenExam):
    """Of recognisers that write: answers are texts, references what was said, decisions words. shown: an example's sound."""

    shown: Callable[[Dataset, int], str]

    units: ClassVar[str] = "words"

    def decisions(self, answers: Answers) -> Decisions:
        return words_of(answers.given, answers.references)

    def constant(self, answers: Answers) -> list[str]:
        """Nothing: an error rate of 1."""
        return [""] * len(answers)

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Sound:
        of = any_of(answers)
        heard = {name: str(one.given[example]) for name, one in answers.items()}
        return compared(self.shown(split, int(of.keys[example])), str(of.references[example]), heard, place)

    def named(self, decision: Any) -> str:
        return named(decision)


def words_of(heard: Given, references: Given) -> Decisions:
    """Every word that was said: what stands in its place, "" where nothing does. Words that are too many decide nothing here;
    the error rates count them."""
    decided, right, example, place = list[str](), list[str](), list[int](), list[int]()
    for row, (one, said) in enumerate(zip(heard, references, strict=True)):
        words = normalised(str(said)).split()
        decided += [found or "" for found in aligned(normalised(str(one)).split(), words)]
        right += words
        example += [row] * len(words)
        place += range(len(words))
    return Decisions(np.array(decided, object), np.array(right, object), np.array(example, np.int64),
                     np.array(place, np.int64))


def compared(sound: str, right: str, heard: Mapping[str, str], place: int) -> Sound:
    """The sound with what was said in it, a word of it marked, and what each model heard, wrong words marked."""
    words = normalised(right).split()
    start = sum(len(word) + 1 for word in words[:place])
    said = Text(" ".join(words), (Mark(start, start + len(words[place]), ""),))
    return Sound(sound, {"right": said, **{name: _marked(normalised(one), words, name) for name, one in heard.items()}})


def named(decision: Any) -> str:
    return str(decision) or "(nothing)"


def frames_in(batch: Batch, said: Tensor) -> list[int]:
    """How many frames of each sound are its own."""
    mask = batch.get("frames", {}).get(Side.STUDENT.value)
    return [said.shape[1]] * len(said) if mask is None else [min(int(one), said.shape[1]) for one in mask.sum(1)]


def _divergences(
    teacher: Float[Tensor, "batch frames classes"], model: Float[Tensor, "batch frames classes"], own: Sequence[int]
) -> list[float]:
    frames = min(teacher.shape[1], model.shape[1])
    each = (teacher[:, :frames].exp() * (teacher[:, :frames] - model[:, :frames])).sum(-1)
    return [max(0.0, float(row[:length].double().mean())) for row, length in zip(each, own, strict=True)]


def _marked(heard: str, right: Sequence[str], by: str) -> Text:
    words = heard.split()
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    return Text(heard, tuple(Mark(int(starts[one]), int(starts[one]) + len(words[one]), "", by)
                             for one in differing(words, right)))


def speech_metrics() -> tuple[Metric, ...]:
    """Word and character error rate of what was heard, and the share of utterances without an edit. Of normalised texts
    (`transcripts.normalised`)."""
    return (*(_of_heard(metric) for metric in find(("wer", "cer"))), Metric("exact_match", _whole, _ratio))


def _of_heard(metric: Metric) -> Metric:
    """A measure of texts, of texts with what is known of their frames."""
    return replace(metric, statistics=lambda given, references: metric.statistics([heard for heard, _ in given], references))


def _whole(given: Sequence[Heard], references: Sequence[str]) -> NDArray[np.float64]:
    same = [normalised(heard[0]) == normalised(said) for heard, said in zip(given, references, strict=True)]
    return np.stack([np.array(same, float), np.ones(len(same))], axis=1)


def _ratio(sums: NDArray[np.float64]) -> float:
    return float(sums[0] / sums[1]) if sums[1] else float("nan")
