"""Do answers of teachers that have not learnt an example from its label teach more of it than the teacher's own?

    python -m benchmarks.gap.folds --cases docstrings --seeds 3

A teacher that knows its training data by heart says of them what their labels say. Two ways out are tried, without any other
input: answers *out of fold* (of so many teachers, each trained without the part of the data that it answers for), and
*filtered* ones (Filter-KD: the mean of what the teacher answered over its own training; Ren, Guo and Sutherland, ICLR 2022).
The student, its start, its steps and the texts as they are stay the same; only the answers differ.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup
from transformers.modeling_outputs import SequenceClassifierOutput

from benchmarks.gap.cases import CASES, SINGLE_TEXTS
from benchmarks.gap.classifiers import load, tokens
from benchmarks.gap.data import Rows, read, write
from benchmarks.gap.measured import Ways, measure
from benchmarks.gap.options import parser
from benchmarks.gap.runs import Bench, Kept, seconds_of
from benchmarks.students import run_of

FOLDS = 3
SHARE = 0.1
"""Of the newest answer in a filtered one."""
ANSWERS = "STILLA_STORED_ANSWERS"
"""The variable of the environment with the folders of a stored teacher's answers and of the teacher behind them."""
BATCH = 32


def main() -> None:
    options = parse()
    measure(options, lambda bench, case: ways(bench, case, options))


def ways(bench: Bench, case: str, options: argparse.Namespace) -> Ways:
    teacher = bench.teacher(case)
    answers = {f"labels, {options.passes:g} passes, {options.rate:g}": None, "its own answers": str(teacher),
               "answers out of fold": out_of_fold(bench, case), "filtered answers": filtered(bench, case, teacher)}
    return {name: partial(taught, bench, case, one, name, options) for name, one in answers.items()}


def taught(bench: Bench, case: str, answers: str | None, name: str, options: argparse.Namespace, seed: int) -> Kept:
    """The student of the case by labels and one of the teachers, or by labels alone."""
    place = bench.folder(case) / "folds" / name.replace(", ", "-").replace(" ", "-") / str(seed)
    share = 1.0 if answers is None else options.labels
    terms = [{"kind": "labels", "weight": share}] if share else []
    if answers is not None:
        terms.append({"kind": "logits", "temperature": options.temperature, "weight": round(1 - share, 3)})

    def train() -> tuple[Path, float]:
        teacher = bench.teacher(case)
        source: dict[str, Any] = {"model": str(teacher)}
        if answers is not None and answers != str(teacher):
            os.environ[ANSWERS] = os.pathsep.join((answers, str(teacher)))
            source = {"model": "benchmarks.gap.folds:stored_teacher", "processor": str(teacher)}
        base = bench.base(case, CASES[case])
        student = {"model": str(bench.begun(case))}
        run = run_of({**base, "data": {**base["data"], "augment": "none"}, "teacher": source, "student": student,
                      "distill": {"objectives": terms, "epochs": options.passes, "learning_rate": options.rate},
                      "cache": {"form": "none"}, "seed": seed, "output": str(place / "run")}, [])
        return run.student, seconds_of(run.folder)

    return bench.kept(place / "kept.npz", case, train)


def out_of_fold(bench: Bench, case: str) -> str:
    """A folder with the answer to every training text by the teacher that has not learnt it."""
    folder = bench.folder(case) / "folds" / "teachers"
    if not (folder / "answers.pt").is_file():
        data = bench.folder(case) / "data"
        rows = read(data, "train")
        found: dict[tuple[int, ...], Tensor] = {}
        for fold in range(FOLDS):
            asked = [row for number, row in enumerate(rows) if number % FOLDS == fold]
            model = fold_teacher(bench, case, fold, [row for number, row in enumerate(rows) if number % FOLDS != fold])
            found.update(answered(model, [row[CASES[case].data["text"]] for row in asked]))
        torch.save(found, folder / "answers.pt")
    return str(folder)


def fold_teacher(bench: Bench, case: str, fold: int, rows: Rows) -> Path:
    """The case's teacher, as it is trained there, from a part of the data."""
    folder = bench.folder(case) / "folds" / "teachers" / str(fold)
    for split in ("validation", "test"):
        write(folder / "data", split, read(bench.folder(case) / "data", split))
    write(folder / "data", "train", rows)
    base = bench.base(case, CASES[case])
    source = {"model": str(CASES[case].start(bench.folder(case) / "data")), "train": dict(CASES[case].teacher)}
    run_of({**base, "data": {**base["data"], "train": str(folder / "data")}, "teacher": source,
            "student": {"layers": 1}, "distill": {"max_steps": 1}, "output": str(folder / "run")}, [])
    return folder / "run" / "teacher"


@torch.no_grad()
def answered(model: Path, texts: list[str]) -> dict[tuple[int, ...], Tensor]:
    """The logits of each text, by its tokens."""
    tokenizer, teacher = AutoTokenizer.from_pretrained(model), load(model).eval()
    found: dict[tuple[int, ...], Tensor] = {}
    for begin in range(0, len(texts), BATCH):
        batch = tokens(tokenizer, texts[begin:begin + BATCH], teacher)
        logits = teacher(**batch).logits
        found.update(zip(_keys(batch["input_ids"], batch["attention_mask"]), logits, strict=True))
    return found


def filtered(bench: Bench, case: str, teacher: Path) -> str:
    """A folder with the mean of a teacher's answers over its own training, begun with the labels (Filter-KD)."""
    folder = bench.folder(case) / "folds" / "filtered"
    if not (folder / "answers.pt").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        said, data = CASES[case].teacher, CASES[case].data
        rows = pq.read_table(bench.folder(case) / "data" / "train.parquet").to_pylist()
        tokenizer = AutoTokenizer.from_pretrained(teacher)
        # the final teacher's folder knows the classes; its training starts where the case's does
        classes: Mapping[str, int] = load(teacher).config.label2id
        start = CASES[case].start(bench.folder(case) / "data")
        model = AutoModelForSequenceClassification.from_pretrained(
            start, num_labels=len(classes), ignore_mismatched_sizes=True, dtype=torch.float32).train()
        named = [row[data["label"]] for row in rows]
        labels = torch.tensor([one if isinstance(one, int) else classes[one] for one in named])
        averages = F.one_hot(labels, len(classes)).float()
        generator = torch.Generator().manual_seed(0)
        steps = int(said["epochs"] * -(-len(rows) // BATCH))
        optimiser = torch.optim.AdamW(model.parameters(), lr=said["learning_rate"])
        schedule = get_linear_schedule_with_warmup(optimiser, int(0.06 * steps), steps)
        keys: dict[int, tuple[int, ...]] = {}
        for _ in range(said["epochs"]):
            for part in torch.randperm(len(rows), generator=generator).split(BATCH):
                chosen = [rows[index][data["text"]] for index in part.tolist()]
                batch = tokens(tokenizer, chosen, model)
                keys.update(zip(part.tolist(), _keys(batch["input_ids"], batch["attention_mask"]), strict=True))
                logits = model(**batch).logits
                averages[part] += SHARE * (logits.detach().softmax(-1) - averages[part])
                F.cross_entropy(logits, labels[part]).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                optimiser.zero_grad()
        torch.save({keys[index]: averages[index].clamp_min(1e-6).log() for index in range(len(rows))}, folder / "answers.pt")
    return str(folder)


class StoredTeacher(nn.Module):
    """Answers what is stored of the tokens of a text, and as `like` where nothing is: of no training text."""

    def __init__(self, stored: Mapping[tuple[int, ...], Tensor], like: nn.Module) -> None:
        super().__init__()
        self.stored, self.like = stored, like

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **others: Tensor) -> SequenceClassifierOutput:
        keys = _keys(input_ids, attention_mask)
        if all(key in self.stored for key in keys):
            return SequenceClassifierOutput(logits=torch.stack([self.stored[key] for key in keys]))
        logits = self.like(input_ids=input_ids, attention_mask=attention_mask, **others).logits
        rows = [self.stored.get(key, row) for key, row in zip(keys, logits, strict=True)]
        return SequenceClassifierOutput(logits=torch.stack(rows))


def stored_teacher() -> nn.Module:
    """For a recipe: `teacher: {model: benchmarks.gap.folds:stored_teacher, processor: FOLDER}`."""
    answers, like = os.environ[ANSWERS].split(os.pathsep)
    return StoredTeacher(torch.load(Path(answers) / "answers.pt"), load(Path(like)))


def _keys(ids: Tensor, mask: Tensor) -> list[tuple[int, ...]]:
    """Of every row its tokens, without padding."""
    return [tuple(row[valid.bool()].tolist()) for row, valid in zip(ids, mask, strict=True)]


def parse() -> argparse.Namespace:
    made = parser("benchmarks.gap.folds", __doc__, SINGLE_TEXTS, ["docstrings"])
    made.add_argument("--passes", type=float, default=24)
    made.add_argument("--rate", type=float, default=1e-3)
    made.add_argument("--labels", type=float, default=0.3, help="weight of the labels beside a teacher's answers")
    made.add_argument("--temperature", type=float, default=2.0)
    return made.parse_args()


if __name__ == "__main__":
    main()
