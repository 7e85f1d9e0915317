"""Tiny models that learn from labelled and unlabelled examples together. Also run as a program by launchers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Image, Value
from transformers import TrainingArguments, ViTForImageClassification, set_seed

from stilla import DistillationTrainer, Student, Term
from stilla.data import are_unlabelled, joined
from stilla.objectives import Labels, Logits
from stilla.students import automatic_layer_map
from stilla.tasks.base import Loaded, Task
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.masked_lm import MaskedLM
from stilla.tasks.language.sections import CausalLMData, MaskedLMData, Seq2SeqData
from stilla.tasks.language.seq2seq import Seq2Seq
from stilla.tasks.text.sections import TextClassificationData, TokenClassificationData
from stilla.tasks.text.text_classification import TextClassification
from stilla.tasks.text.token_classification import TokenClassification
from stilla.tasks.vision.image_classification import ImageClassification
from stilla.tasks.vision.sections import ImageClassificationData
from tests.equivalence.setting import bert, leave
from tests.tasks import pairs
from tests.tasks.test_unlabelled import png
from tests.tasks.text import taggers
from tests.tasks.text.proposed import proposals
from tests.tasks.tiny import bert_tokenizer, image_processor, labels_of, vit_config
from tests.tasks.tiny_lm import bert_lm, bert_lm_tokenizer, byte_tokenizer, llama, sentences

KINDS = ("text", "words", "image", "causal", "masked", "seq2seq")
TERMS = (Term(Labels(), weight=0.3), Term(Logits(temperature=2.0), weight=0.7))


def texts(number: int, seed: int = 0) -> list[str]:
    draw = torch.Generator().manual_seed(seed)
    words = bert_tokenizer().decode(range(5, 17)).split()
    return [" ".join(words[place] for place in torch.randint(len(words), (2 + int(length),), generator=draw))
            for length in torch.randint(8, (number,), generator=draw)]


def made(kind: str, labelled: int, pool: int) -> tuple[Task, Dataset, Dataset, Any, Any, Any]:
    """Task, labelled and unlabelled examples as data have them, processor, teacher, student."""
    smaller = {"num_hidden_layers": 1, "hidden_size": 8}
    if kind in ("text", "reworded"):
        names = {"topic": ["x", "y", "z"]}
        split = Dataset.from_dict({"text": texts(labelled), "topic": (names["topic"] * labelled)[:labelled]})
        others = Dataset.from_dict({"text": texts(pool, 1)})
        augment = {"augment": {"kind": "contextual", "model": "m"}} if kind == "reworded" else {}
        task: Task = TextClassification.understand(TextClassificationData(train="x", **augment), {"train": split})
        if isinstance(task, TextClassification) and task.contextual is not None:
            task = task.knowing(proposals([*split["text"], *others["text"]], bert_tokenizer().decode(range(5, 17)).split()))
        teacher, student = (bert(width, layers) for width, layers in ((32, 3), (16, 1)))
        for model in (teacher, student):
            model.config.update(labels_of("x", "y", "z"))
        return task, split, others, bert_tokenizer(), teacher, student
    if kind == "words":
        split = Dataset.from_dict(taggers.sentences(labelled))
        others = Dataset.from_dict({"tokens": taggers.sentences(pool, 1)["tokens"]})
        task = TokenClassification.understand(TokenClassificationData(train="x"), {"train": split})
        tokenizer = taggers.wordpieces()
        quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        teacher, student = (taggers.model("bert", len(tokenizer), task.class_names(), layers=layers, **quiet)
                            for layers in (2, 1))
        return task, split, others, tokenizer, teacher, student
    if kind == "image":
        rows = {"image": [{"bytes": png(seed), "path": None} for seed in range(labelled)],
                "label": (["cat", "dog"] * labelled)[:labelled]}
        split = Dataset.from_dict(rows, features=Features({"image": Image(), "label": Value("string")}))
        others = Dataset.from_dict({"image": [png(1000 + seed) for seed in range(pool)]})
        task = ImageClassification.understand(ImageClassificationData(train="x"), {"train": split})
        teacher, student = (ViTForImageClassification(vit_config(num_hidden_layers=layers, **labels_of("cat", "dog")))
                            for layers in (2, 1))
        return task, split, others, image_processor(), teacher, student
    if kind == "seq2seq":
        split, others = Dataset.from_dict(pairs.pairs(labelled)), Dataset.from_dict(pairs.pairs(pool, 1))
        teacher = pairs.model("t5", layers=2)
        task = Seq2Seq.understand(Seq2SeqData(train="x"), {"train": split})
        return task, split, others, pairs.processor("t5", teacher), teacher, pairs.model("t5", layers=1, width=8)
    split, others = (Dataset.from_dict({"text": sentences(number, seed)}) for seed, number in enumerate((labelled, pool)))
    if kind == "causal":
        task = CausalLM.understand(CausalLMData(train="x", max_length=80), {"train": split})
        return task, split, others, byte_tokenizer(), llama(), llama(**smaller)
    task = MaskedLM.understand(MaskedLMData(train="x", max_length=16), {"train": split})
    return task, split, others, bert_lm_tokenizer(), bert_lm(), bert_lm(**smaller)


def mixed(task: Task, split: Dataset | None, pool: Dataset | None) -> Dataset:
    """What a training learns from; what the teacher would have written is there already."""
    if pool is None:
        assert split is not None
        return split
    bound = task.beside(pool) if isinstance(task, Seq2Seq) else task.unlabelled(pool, {})
    return joined(None if split is None else task.beside(split), bound)


def trainer(
    kind: str, folder: Path, *, labelled: int = 10, pool: int = 14, share: object = None, terms: Sequence[Term] = TERMS,
    parts: str = "both", hardest: int | None = None, **options: Any,
) -> DistillationTrainer:
    """`parts`: both, or the labelled examples as such (`labelled`) or without their labels (`unlabelled`)."""
    torch.manual_seed(0)
    task, split, others, processor, teacher, student = made(kind, labelled, pool)
    for model in (teacher, student):
        model.config.use_cache = False
    task = task.adapted_to(Loaded(teacher, processor, "teacher"))
    rows = {"both": lambda: mixed(task, split, others), "labelled": lambda: mixed(task, split, None),
            "unlabelled": lambda: mixed(task, None, split), "pool": lambda: mixed(task, None, others)}[parts]()
    prepared = task.prepare(rows, processor, processor, training=True, seed=1)
    prepared = replace(prepared, unlabelled=np.asarray(are_unlabelled(rows)[prepared.keys]))
    set_seed(0)
    arguments = {"per_device_train_batch_size": 8, "max_steps": 6, "learning_rate": 5e-2, "optim": "sgd",
                 "save_strategy": "no", "logging_steps": 1, "max_grad_norm": 0.5, **options}
    return DistillationTrainer(
        Student(student, automatic_layer_map(student, teacher)), teacher, terms=terms, task=task, train_dataset=prepared,
        unlabelled_share=share, hardest=hardest, args=TrainingArguments(  # type: ignore[arg-type]
            output_dir=str(folder), report_to=[], disable_tqdm=True, use_cpu=True, remove_unused_columns=False,
            logging_nan_inf_filter=False, **arguments))


if __name__ == "__main__":
    folder, kind, batch, accumulate = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    one = trainer(kind, folder, labelled=7, pool=10, share=None if sys.argv[5] == "none" else {"linear": [0.2, 1.0]},
                  per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate, ddp_find_unused_parameters=False)
    one.train()
    leave(one, folder)
