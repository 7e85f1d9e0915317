"""`saliency` in the loss of tags: do the student's then rest on the same words as its teacher's, and what does that take?

    python -m benchmarks.tag_reasons --data FOLDER

all-MiniLM-L6-v2 learns parts of speech from a few sentences of UD English EWT; students of some of its layers learn from the
same ones: from labels alone, from labels and logits, and from `saliency` beside. The correlation with what the teacher's tags
rest on is by integrated gradients (`evaluate.saliency`); `--ceiling` trains the teacher once more, with another seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from benchmarks.inputs import add_data_option, minilm, ud_english
from benchmarks.levers.setting import table
from benchmarks.methods import lend_baseline
from benchmarks.students import parser, run_of
from stilla.report import numbers
from stilla.runtime.quiet import quiet_libraries
from stilla.scores import Reasons, Scores
from stilla.stages.folder import RunFolder

TERMS = ({"kind": "labels", "weight": 0.3}, {"kind": "logits", "weight": 0.7, "temperature": 2.0})
WAYS: dict[str, tuple[dict[str, Any], ...]] = {"labels 0.3, logits 0.7": (), "and saliency 0.5": (
    {"kind": "saliency", "weight": 0.5},)}


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/tag_reasons", seeds=3, threads=1, limit=300, epochs=10.0, learning_rate=3e-4,
                  teacher_epochs=10.0, teacher_learning_rate=1e-4, export=[])
    add_data_option(made)
    made.add_argument("--depth", type=int, default=2, help="layers of the students")
    made.add_argument("--measured", type=int, default=500, help="test sentences")
    made.add_argument("--explained", type=int, default=40, help="of them, for the correlation")
    made.add_argument("--ceiling", action="store_true", help="also how alike two trainings of the teacher are")
    options = made.parse_args()
    quiet_libraries()
    torch.set_num_threads(options.threads)
    data = cut(options, options.output / "data")
    first, *others = WAYS
    asked = {"examples": options.explained, "ceiling": options.ceiling}
    model: dict[str, Any] = {"model": str(minilm()), "train": {
        "epochs": options.teacher_epochs, "learning_rate": options.teacher_learning_rate, "batch_size": 32}}
    runs = {first: run_of(recipe(options, data, first, model, asked), options.overrides)}
    lender = RunFolder(runs[first].folder)
    for way in others:
        here = recipe(options, data, way, {"model": str(lender.teacher)}, {**asked, "ceiling": False})
        lend_baseline(lender, RunFolder(Path(here["output"])))
        runs[way] = run_of(here, options.overrides)
    scores = [run.scores for run in runs.values()]
    kl = [numbers.significant(one.student.kl[one.split]) for one in scores]
    nearness = [str(reasons(one).agreement["student"]) for one in scores]
    whole = scores[0]
    ceiling = f", of the teacher with another seed {reasons(whole).ceiling}" if options.ceiling else ""
    print(f"\n{options.limit} sentences, {options.depth} layers, {options.seeds} seeds, {whole.examples[whole.split]:,} test "
          f"sentences, {whole.metric}\n\n{table(runs, {'KL, nats': kl, 'correlation': nearness})}\n\nteacher "
          f"{numbers.quality(whole.metric, whole.teacher[whole.metric])}; correlation of labels alone "
          f"{reasons(whole).agreement['baseline']}{ceiling} ({options.explained} sentences, the first seed)")


def cut(options: argparse.Namespace, target: Path) -> Path:
    """The first sentences of every split, no more than are asked for."""
    target.mkdir(parents=True, exist_ok=True)
    for split, most in {"train": options.limit, "validation": 100, "test": options.measured}.items():
        rows = pq.read_table(ud_english(options.data) / f"{split}.parquet", columns=["tokens", "upos"])
        pq.write_table(rows.slice(0, most), target / f"{split}.parquet")
    return target


def recipe(
    options: argparse.Namespace, data: Path, way: str, teacher: dict[str, Any], asked: dict[str, Any]
) -> dict[str, Any]:
    """The teacher is asked anew by all ways, as its gradients are not stored."""
    files = {split: str(data / f"{split}.parquet") for split in ("train", "validation", "test")}
    return {
        "task": "token-classification", "data": {**files, "tokens": "tokens", "tags": "upos"}, "teacher": teacher,
        "student": {"layers": options.depth}, "cache": {"form": "none"}, "export": options.export,
        "distill": {"epochs": options.epochs, "learning_rate": options.learning_rate, "batch_size": 32,
                    "objectives": [*TERMS, *WAYS[way]], "trainer": {"eval_strategy": "no"}},
        "evaluate": {"baseline": True, "seeds": options.seeds, "speed": False, "saliency": asked},
        "output": str(options.output / way.replace(",", "").replace(" ", "-"))}


def reasons(scores: Scores) -> Reasons:
    assert scores.reasons is not None
    return scores.reasons


if __name__ == "__main__":
    main()
