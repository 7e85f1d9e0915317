"""A tiny teacher, student and ragged data: what every equivalence test trains. Also run as a program by launchers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments, set_seed

from stilla import DistillationTrainer, Student, Term
from stilla.objectives import DIST, DKD, Hidden, Labels, Logits, Saliency, Weights
from stilla.recipe import Average
from stilla.training.patience import Patience

EXAMPLES = 24


def bert(width: int, layers: int, dropout: float = 0.0, labels: int = 3) -> BertForSequenceClassification:
    return BertForSequenceClassification(BertConfig(
        vocab_size=50, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=2 * width,
        max_position_embeddings=32, num_labels=labels, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout))


def examples(number: int = EXAMPLES) -> Dataset:
    generator = torch.Generator().manual_seed(1)
    rows = []
    for index in range(number):
        length = int(torch.randint(3, 12, (1,), generator=generator))
        rows.append({"input_ids": torch.randint(1, 50, (length,), generator=generator).tolist(), "labels": index % 3})
    return Dataset.from_list(rows)


def pad(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    longest = max(len(item["input_ids"]) for item in items)
    ids = torch.zeros(len(items), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, item in enumerate(items):
        ids[row, :len(item["input_ids"])] = torch.tensor(item["input_ids"])
        mask[row, :len(item["input_ids"])] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([item["labels"] for item in items])}


SETS = {
    "hidden": lambda: [Term(Hidden())],
    "rows": lambda: [Term(Labels(), weight=0.3), Term(Logits(standardise=True), weight=5.0),
                     Term(DKD(), weight={"linear": [1.0, 0.2]})],
    "weights": lambda: [Term(Labels(), weight=0.3), Term(Weights(["classifier.bias"]), weight=0.5)],
    "saliency": lambda: [Term(Labels(), weight=0.3), Term(Saliency(), weight=1.0)],
    "dist": lambda: [Term(DIST(temperature=2.0))],
    "dist and others": lambda: [Term(Labels(), weight=0.3), Term(DIST(beta=0.5, gamma=2.0), weight=2.0), Term(Hidden())],
}
"""Terms by what they are about; those of logits for five classes."""


def terms() -> list[Term]:
    """One of each kind: rows with labels, rows with a teacher and a scheduled temperature, tokens with projections."""
    return [Term(Labels(), weight=0.3), Term(Logits(temperature={"linear": [4.0, 1.0]}), weight=0.7),
            Term(Hidden(), weight={"cosine": [1.0, 0.1]})]


def trainer(folder: Path, *, dropout: float = 0.0, data: Dataset | None = None, student: Any = None, collator: Any = pad,
            callbacks: Sequence[Any] = (), objectives: Sequence[Term] | None = None, labels: int = 3,
            average: Average | None = None, compute_metrics: Any = None, extend: int | None = None,
            **options: Any) -> DistillationTrainer:
    torch.manual_seed(0)
    teacher, model = bert(32, 4, labels=labels), bert(16, 2, dropout, labels)
    set_seed(0)  # the projection is made in the trainer
    arguments = {"per_device_train_batch_size": 8, "max_steps": 6, "learning_rate": 5e-2, "optim": "sgd",
                 "save_strategy": "no", "logging_steps": 1, "use_cpu": True, "max_grad_norm": 0.5,
                 "lr_scheduler_type": "linear", **options}
    return DistillationTrainer(
        Student(student or model, {"layers": (1, 3)}), teacher, terms=objectives or terms(), train_dataset=data or examples(),
        eval_dataset=examples(),
        data_collator=collator, callbacks=callbacks, average=average, compute_metrics=compute_metrics,
        extend=extend,
        args=TrainingArguments(output_dir=str(folder), report_to=[], disable_tqdm=True,
                               remove_unused_columns=False, logging_nan_inf_filter=False, **arguments))


def few_steps(place: Path, steps: int, rate: float, /, **options: Any) -> TrainingArguments:
    """Of plain descent in batches of eight, each of them logged and nothing saved, where options do not say otherwise."""
    return TrainingArguments(**{
        "output_dir": str(place), "report_to": [], "disable_tqdm": True, "use_cpu": True, "remove_unused_columns": False,
        "per_device_train_batch_size": 8, "max_steps": steps, "learning_rate": rate, "optim": "sgd", "save_strategy": "no",
        "logging_steps": 1, "max_grad_norm": 0.5, **options})


def leave(trained: DistillationTrainer, folder: Path) -> None:
    """What the test that has launched this process reads: its weights and losses."""
    torch.save((weights(trained), losses(trained)), folder / f"rank{trained.args.process_index}.pt")


def weights(trained: DistillationTrainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trained.accelerator.unwrap_model(trained.model).state_dict().items()}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest absolute difference of any parameter; all names must agree."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def losses(trained: DistillationTrainer) -> list[dict[str, float]]:
    """What was logged per step, terms by name."""
    return [{name: value for name, value in entry.items() if name == "loss" or name.startswith("terms/")}
            for entry in trained.state.log_history if "loss" in entry]


def _options(name: str = "") -> dict[str, Any]:
    if name == "averaged":
        return {"average": Average(ema=0.6)}
    if name == "patient":
        return {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "learning_rate": 2.0,
                "load_best_model_at_end": True, "metric_for_best_model": "kl", "callbacks": [Patience(1)]}
    if name == "extended":
        return {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "learning_rate": 0.05,
                "load_best_model_at_end": True, "metric_for_best_model": "kl", "extend": 2, "objectives": [Term(Logits())]}
    return {"objectives": SETS[name](), "labels": 5} if name else {}


if __name__ == "__main__":
    folder, number, batch = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    made = trainer(folder, data=examples(number), per_device_train_batch_size=batch, max_steps=-1, num_train_epochs=2,
                   gradient_accumulation_steps=int(sys.argv[4]), ddp_find_unused_parameters=False,
                   **_options(*sys.argv[5:]))
    made.train()
    leave(made, folder)
