"""Tiny models over a vocabulary, in training. Also run as a program by launchers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainingArguments, set_seed

from stilla import DistillationTrainer, Student, Term
from stilla.objectives import Hidden, Labels, Logits
from stilla.students import automatic_layer_map
from stilla.tasks.base import Loaded, Task
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.masked_lm import MaskedLM
from stilla.tasks.language.sections import CausalLMData, MaskedLMData, Seq2SeqData
from stilla.tasks.language.seq2seq import Seq2Seq
from stilla.teachers import LiveTeacher, Teacher
from tests.equivalence.setting import leave
from tests.tasks import pairs
from tests.tasks.recommendation import setting as histories
from tests.tasks.tiny_lm import bert_lm, bert_lm_tokenizer, byte_tokenizer, llama, sentences

KINDS = ("causal", "masked", "seq2seq", "next item", "hidden items")


def trainer(
    kind: str, folder: Path, *, examples: int = 24, compile: bool = False, objectives: Sequence[Term] | None = None,
    answering: Callable[[LiveTeacher], Teacher] = lambda live: live, evaluated: bool = False, **options: Any
) -> DistillationTrainer:
    """`answering`: who answers in the place of the live teacher. `evaluated`: on what it is trained on."""
    task, split, processor, teacher, student = _made(kind, examples)
    for model in (teacher, student):
        model.config.use_cache = False
    task = task.adapted_to(Loaded(teacher, processor, "teacher"))
    set_seed(0)
    terms = [Term(Labels(), weight=0.3), Term(Logits(temperature=2.0), weight=0.7), Term(Hidden(layers="last"), weight=0.5)]
    arguments = {"per_device_train_batch_size": 8, "max_steps": 4, "learning_rate": 5e-2, "optim": "sgd",
                 "save_strategy": "no", "logging_steps": 1, "use_cpu": True, "max_grad_norm": 0.5, **options}
    return DistillationTrainer(
        Student(student, automatic_layer_map(student, teacher)),
        teacher if objectives is None else answering(LiveTeacher(teacher, task)),
        terms=objectives or terms, task=task, compile=compile,
        train_dataset=task.prepare(split, processor, processor, training=True, seed=1),
        eval_dataset=task.prepare(split, processor, processor, training=False) if evaluated else None,
        args=TrainingArguments(output_dir=str(folder), report_to=[], disable_tqdm=True,
                               remove_unused_columns=False, logging_nan_inf_filter=False, **arguments))


def _made(kind: str, examples: int) -> tuple[Task, Dataset, Any, Any, Any]:
    """Task, data, tokenizer, teacher and a student of one layer and half the width."""
    smaller: dict[str, Any] = {"num_hidden_layers": 1, "hidden_size": 8}
    if kind == "seq2seq":
        split = Dataset.from_dict(pairs.pairs(examples))
        teacher = pairs.model("t5", layers=3)
        task: Task = Seq2Seq.understand(Seq2SeqData(train="x"), {"train": split})
        return task, split, pairs.processor("t5", teacher), teacher, pairs.model("t5", layers=1, width=8)
    if kind in ("next item", "hidden items"):
        split = histories.split(examples)
        items = histories.task(split, mask=0.3 if kind == "hidden items" else None)
        one, other = histories.loaded(items), histories.loaded(items, **smaller)
        return items, split, one.processor, one.model, other.model
    split = Dataset.from_dict({"text": sentences(examples)})
    if kind in ("causal", "unpacked", "untied"):
        task = CausalLM.understand(CausalLMData(train="x", max_length=80, pack=kind != "unpacked"), {"train": split})
        tied = {"tie_word_embeddings": kind != "untied"}
        return task, split, byte_tokenizer(), llama(**tied), llama(**smaller, **tied)
    task = MaskedLM.understand(MaskedLMData(train="x", max_length=16), {"train": split})
    return task, split, bert_lm_tokenizer(), bert_lm(), bert_lm(**smaller)


if __name__ == "__main__":
    folder, kind, batch, accumulate = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    made = trainer(kind, folder, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate,
                   ddp_find_unused_parameters=False)
    made.train()
    leave(made, folder)
