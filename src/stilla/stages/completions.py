"""Who writes the texts that a student learns from: the data, or the teacher (`completions: teacher` in a recipe).

Sequence-level distillation (Kim and Rush 2016, arXiv:1606.07947): the student learns, by plain cross-entropy, what the
teacher says instead of what the data say. It needs no common tokenizer. Texts are written once, in large batches, into
the run folder, part by part; a run that was killed goes on with the next part and ends with the same bytes.

Texts that the student writes itself (alone, or mixed in) would be other sources behind the same function.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla import data
from stilla.errors import CompatibilityError, DataError, StillaError, counted
from stilla.evaluate.generate import Decoding, Written, by_length, effective, writer
from stilla.models.fingerprint import of_model
from stilla.recipe import Completions, Recipe
from stilla.rows import row_measures
from stilla.runtime.imports import own_function
from stilla.runtime.narrate import say
from stilla.runtime.processes import processes
from stilla.stages.parts import Parts
from stilla.stages.unlabelled import is_written
from stilla.tasks.base import Loaded, Side, Task
from stilla.tasks.forward import listen
from stilla.tasks.language.writing import Asked, Writes
from stilla.tasks.shared.transcripts import word_error_rate

KEEP = "completions.keep"

SCHEMA = pa.schema([("key", pa.int64()), ("text", pa.string()), ("tokens", pa.int32()), ("log_probability", pa.float64()),
                    ("cut", pa.bool_())])


@dataclass(frozen=True)
class Completed:
    """Examples with the teacher's texts in place of their own, and of how many that could be asked. `said`: (examples,
    classes) how likely each class is, as logarithms; None where texts are all that was said."""

    data: Dataset
    of: int
    said: NDArray[np.float32] | None = None

    @property
    def share(self) -> float:
        return len(self.data) / self.of

    @property
    def fingerprint(self) -> str:
        whole = self.data if self.said is None else self.data.add_column("said", self.said.tolist())
        return data.fingerprint.of_splits({"train": whole})


def settled(recipe: Recipe, task: Task) -> Recipe:
    """The recipe with what it leaves open: that the teacher writes the texts for unlabelled examples, which need some."""
    if recipe.completions is not None or recipe.data.unlabelled is None or not is_written(task):
        return recipe
    return recipe.model_copy(update={"completions": Completions(by="teacher", of="unlabelled")})


def problems(recipe: Recipe, task: Task) -> list[str]:
    """What keeps a recipe's `completions` from working, as far as it can be known without a model."""
    if recipe.completions is None or recipe.teacher.api is not None:  # stages/asking.py
        return []
    if isinstance(task, Writes):
        wrong = [f"completions: {why}" for why in [task.unasked()] if why] + unfit_filter(recipe.completions)
        if recipe.completions.max_wer is not None and not task.dictated:
            wrong.append(f"completions.max_wer: a text of `{task.kind}` may be right in other words than the data's; leave "
                         "it out, or filter by min_log_probability or keep")
        return wrong
    return [f"completions: the models of `{task.kind}` write no texts. Leave it out, or take a task whose models do: "
            "seq2seq, speech-recognition by encoder-decoders, image-text-to-text, or causal-lm with prompts and completions "
            "or conversations"]


def unfit_filter(section: Completions) -> list[str]:
    """What is wrong with the function that filters: known before hours of writing, not after."""
    try:
        if section.keep is not None:
            own_function(section.keep, KEEP)
    except StillaError as error:
        return list(error.problems)
    return []


def settings(section: Completions, task: Task, teacher: Loaded) -> dict[str, Any]:
    """All that the written texts depend on beside the data: the stage's fingerprint is made of it."""
    decoding = Decoding(section.max_new_tokens, section.num_beams)
    writer(teacher.model)
    config = effective(teacher.model, {}, decoding)
    return {"teacher": of_model(teacher.model), "tokenizer": _writes(task).teaching().identity(teacher.processor),
            "decoding": json.loads(config.to_json_string(use_diff=True, keys_to_pop=["transformers_version"])),
            "batch_size": section.batch_size}


def write(
    section: Completions, task: Task, teacher: Loaded, split: Dataset, folder: Path, stamp: Mapping[str, Any]
) -> None:
    """Let the teacher write a text for every example, into Parquet files of `folder`; parts that are there are kept.

    Every process of a launched run calls this and writes its share. The bytes do not depend on how many there are.

    Args:
        stamp: what the texts depend on; stands in every file, and a file of another stamp is written again.

    Raises:
        CompatibilityError: the teacher cannot write.
    """
    asked = _writes(task).teaching().asked(split, teacher.processor)
    decoding = Decoding(section.max_new_tokens, section.num_beams)

    def begin(missing: int) -> None:
        say(f"completions: the teacher writes {counted(missing, 'text')}")
        teacher.model.to(processes().device)

    Parts(folder, SCHEMA).make(by_length(asked, section.batch_size),
                               lambda batch: _written(task, teacher, asked, batch, decoding), stamp,
                               title="completions", begin=begin)


def read(section: Completions, task: Task, split: Dataset, folder: Path) -> Completed:
    """What was written, without what the recipe's filters leave out, in the order of the split.

    Raises:
        StillaError: parts are missing.
        DataError: nothing is left.
    """
    rows = Parts(folder, SCHEMA).rows()
    why = [_left_out(section, task, split, row) for row in rows]
    kept = [row for row, reason in zip(rows, why) if reason is None]
    _tell(rows, why)
    if not kept:
        raise DataError(f"completions: none of the {len(rows):,} texts is kept ({_counted(why)}). Loosen the filters "
                        "(min_log_probability, min_tokens, max_tokens, cut, max_wer, keep), or look at what the teacher "
                        f"writes in {folder}")
    chosen = split.select([row["key"] for row in kept])
    texts = _writes(task).answered(chosen, [row["text"] for row in kept], [row["cut"] for row in kept])
    return Completed(texts, len(rows))


def confidences(
    model: nn.Module, task: Task, processor: Any, inputs: Mapping[str, Tensor], written: Sequence[Written]
) -> list[float]:
    """Mean log-probability per token of each text, ends included, in nats: one forward over all of it.

    The same for greedy and beam search. The whole vocabulary counts, padding of the vocabulary included.
    """
    device = next(model.parameters()).device
    batch = _writes(task).teaching().continued(processor, inputs, [one.ids for one in written]).to(device)
    with torch.no_grad():
        said = listen(model, task, batch, Side.TEACHER)
        assert said.logits is not None
        assert said.labels is not None
        nll = row_measures(said.logits, said.labels).nll
    return [-float(part.double().mean()) for part in nll.cpu().split([len(one.ids) for one in written])]


def _written(
    task: Task, teacher: Loaded, asked: Asked, batch: Sequence[int], decoding: Decoding
) -> list[dict[str, Any]]:
    """One batch of texts with what is known about each."""
    inputs = asked.tokens.batch(batch)
    texts = writer(teacher.model)(inputs, asked.options, decoding)
    sure = confidences(teacher.model, task, teacher.processor, inputs, texts)
    return [{"key": int(asked.keys[row]), "text": _writes(task).teaching().text_of(teacher.processor, one.ids),
             "tokens": len(one.ids) - one.ended, "log_probability": confidence, "cut": not one.ended}
            for row, one, confidence in zip(batch, texts, sure)]


# --- what is left out ---


def _left_out(section: Completions, task: Task, split: Dataset, row: Mapping[str, Any]) -> str | None:
    """Why a text is not learnt; None if it is."""
    words = _writes(task).words(row["text"])
    if not words.strip():
        return "empty"
    if row["tokens"] < section.min_tokens:
        return "too short"
    if section.max_tokens is not None and row["tokens"] > section.max_tokens:
        return "too long"
    if section.cut == "drop" and row["cut"]:
        return "cut"
    if section.min_log_probability is not None and row["log_probability"] < section.min_log_probability:
        return "unlikely"
    if section.max_wer is not None and (said := _writes(task).own_text(split, row["key"])) is not None \
            and word_error_rate(words, said) > section.max_wer:
        return "heard otherwise than the data say it (max_wer)"
    if section.keep is not None:
        keep = own_function(section.keep, KEEP)
        return None if keep(_writes(task).source_of(split, row["key"]), row["text"]) else f"not kept by {section.keep}"
    return None


def _tell(rows: Sequence[Mapping[str, Any]], why: Sequence[str | None]) -> None:
    cut = sum(row["cut"] for row in rows)
    sure = np.mean([row["log_probability"] for row in rows])
    said = f"completions: {counted(len(rows), 'text')}, {sure:.2f} nats a token"
    if cut:
        said += f"; {cut:,} were cut at the length limit and are not taught as ended"
    if any(why):
        said += f"; left out: {_counted(why)}"
    say(said)


def _counted(why: Sequence[str | None]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(one for one in why if one).items())


def _writes(task: Task) -> Writes:
    if not isinstance(task, Writes):
        raise CompatibilityError(f"`{task.kind}`: its models write no texts")
    return task
