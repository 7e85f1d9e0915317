"""Language models are trained the same however a step is cut, packed blocks and masks included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import TrainingArguments, set_seed

from stilla import DistillationTrainer, Student, Term
from stilla.objectives import Hidden, Labels, Logits
from stilla.recipe import Data
from stilla.students import automatic_layer_map
from stilla.tasks.base import Loaded
from stilla.tasks.causal_lm import CausalLM
from stilla.tasks.masked_lm import MaskedLM
from tests.equivalence.setting import distance, losses, weights
from tests.tasks.language import bert_lm, bert_lm_tokenizer, byte_tokenizer, llama, sentences


def trainer(kind: str, folder: Path, **options: Any) -> DistillationTrainer:
    split = Dataset.from_dict({"text": sentences(24)})
    causal = kind == "causal"
    tokenizer = byte_tokenizer() if causal else bert_lm_tokenizer()
    teacher = llama() if causal else bert_lm()
    teacher.config.use_cache = False
    section = Data(train="x", max_length=80 if causal else 16)
    task = (CausalLM if causal else MaskedLM).understand(section, {"train": split})
    task = task.adapted_to(Loaded(teacher, tokenizer, "teacher"))
    student = llama(num_hidden_layers=1, hidden_size=8) if causal else bert_lm(num_hidden_layers=1, hidden_size=8)
    student.config.use_cache = False
    set_seed(0)
    terms = [Term(Labels(), weight=0.3), Term(Logits(temperature=2.0), weight=0.7), Term(Hidden(layers="last"), weight=0.5)]
    arguments = {"per_device_train_batch_size": 8, "max_steps": 4, "learning_rate": 5e-2, "optim": "sgd",
                 "save_strategy": "no", "logging_steps": 1, "max_grad_norm": 0.5, **options}
    prepared = task.prepare(split, tokenizer, tokenizer, training=True, seed=1)
    return DistillationTrainer(
        Student(student, automatic_layer_map(student, teacher)), teacher, terms=terms, train_dataset=prepared, task=task,
        args=TrainingArguments(output_dir=str(folder), report_to=[], disable_tqdm=True, use_cpu=True,
                               remove_unused_columns=False, logging_nan_inf_filter=False, **arguments))


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_four_micro_batches_equal_one_batch(kind: str, tmp_path: Path) -> None:
    whole = trainer(kind, tmp_path / "whole")
    whole.train()
    cut = trainer(kind, tmp_path / "cut", per_device_train_batch_size=2, gradient_accumulation_steps=4)
    cut.train()
    assert distance(weights(whole), weights(cut)) < 5e-6
    for one, other in zip(losses(whole), losses(cut), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_a_stop_and_a_continuation_change_nothing(kind: str, tmp_path: Path) -> None:
    whole = trainer(kind, tmp_path / "whole", save_strategy="steps", save_steps=3, max_steps=6)
    whole.train()
    again = trainer(kind, tmp_path / "whole", save_strategy="steps", save_steps=3, max_steps=6)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert distance(weights(whole), weights(again)) < 1e-7
