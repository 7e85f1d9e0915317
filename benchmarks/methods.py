"""One teacher and one student, taught in several ways: Stilla runs that share teacher, start, data and steps.

The first way's run trains the teacher and the baseline. The others take the teacher from its folder, and the baseline
too: it is the same training for all of them, which every run checks by what `stages.json` says of it.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.students import run_of
from benchmarks.tables import markdown
from stilla import Run
from stilla.after import evaluate_run, evaluation_file
from stilla.cache.care import contents
from stilla.cache.store import exists
from stilla.report import numbers
from stilla.report.table import score_table
from stilla.scores import Interval, Measured, Scores, metric_title
from stilla.stages.folder import RunFolder

LABELS = {"kind": "labels", "weight": 0.5}
LOGITS = {"kind": "logits", "weight": 0.5, "temperature": 1.0}

Way = Mapping[str, Any]
"""What a recipe says of one way of teaching: `objectives`, and `cache` or `completions`."""


def taught(
    options: argparse.Namespace, base: Mapping[str, Any], teacher: Path, ways: Mapping[str, Way], *,
    trained: bool = False, more: Path | None = None, told: Mapping[str, Any] | None = None,
) -> dict[str, Run]:
    """The runs by way. `base`: task, data, student of the recipe; `teacher`: to be trained first, if not `trained`; `more`:
    examples that the teacher alone learns from, in the place of the students'; `told`: further fields of all trainings."""
    torch.set_num_threads(options.threads)
    runs: dict[str, Run] = {}
    first = RunFolder(options.output / next(iter(ways)).replace(" ", "-"))
    for name, way in ways.items():
        folder = RunFolder(options.output / name.replace(" ", "-"))
        leads = folder.path == first.path
        source: dict[str, Any] = {"model": str(teacher if trained else first.teacher)}
        if leads and not trained:
            source = {"model": str(teacher), "train": {
                "epochs": options.teacher_epochs, "learning_rate": options.teacher_learning_rate,
                "batch_size": options.batch_size, **(told or {}), **({} if more is None else {"data": str(more)})}}
        if not leads and "completions" not in way:  # whose baseline takes as many steps as there are texts
            lend_baseline(first, folder)
        training = {"epochs": options.epochs, "learning_rate": options.learning_rate, "batch_size": options.batch_size,
                    **(told or {})}
        recipe = {
            **base, "teacher": source, "distill": {**training, "objectives": way["objectives"]},
            **{key: value for key, value in way.items() if key != "objectives"},
            "evaluate": {"baseline": True, "seeds": options.seeds, "speed": leads, **base.get("evaluate", {})},
            "export": options.export if leads else [], "output": str(folder.path),
        }
        runs[name] = run_of(recipe, options.overrides)
    return runs


def lend_baseline(lender: RunFolder, borrower: RunFolder) -> None:
    """Put finished baselines into another run's folder, with the record of what they were made from."""
    there = _stages(borrower)
    made = {stage: record for stage, record in _stages(lender).items()
            if stage.partition("-")[0] == "baseline" and record["done"] and stage not in there}
    for stage in made:
        seed = int(stage.partition("-")[2] or 0)
        shutil.copytree(lender.model("baseline", seed), borrower.model("baseline", seed), dirs_exist_ok=True)
    borrower.write(borrower.path / "stages.json", json.dumps({**there, **made}, indent=1))
    lent = [line for line in _lines(lender) if json.loads(line)["stage"] in made]
    borrower.write(borrower.log, "".join(f"{line}\n" for line in [*_lines(borrower), *lent]))


def elsewhere(runs: Mapping[str, Run], file: Path) -> dict[str, Scores]:
    """The runs' scores on data that nobody was trained for; measured anew where the run was."""
    scores: dict[str, Scores] = {}
    for name, run in runs.items():
        found = evaluation_file(run.folder, str(file))
        kept = found.is_file() and found.stat().st_mtime > RunFolder(run.folder).scores.stat().st_mtime
        scores[name] = Scores.load(found) if kept else evaluate_run(run.folder, str(file))
    return scores


def qualities(runs: Mapping[str, Scores], bytes_: int | None = None) -> str:
    """What every way reached on the headline split: all metrics, agreement, KL and calibration.

    bytes_: of the texts that the tokens stand for, where perplexities are to be compared beyond a tokenizer.
    """
    leading, one = next(iter(runs.items()))
    split = one.split
    metrics = list(one.student.quality[split])
    subjects = {"teacher": one.teacher, **({"labels alone": one.baseline} if one.baseline else {}),
                **{name: scores.student for name, scores in runs.items()},
                **{f"{leading}, {kind}": one.subjects[kind] for kind in ("onnx", "int8") if kind in one.subjects}}

    def row(name: str, measured: Measured) -> list[str]:
        quality, kl = measured.quality.get(split, {}), measured.kl.get(split)
        calibration = measured.calibration.get(split)
        return [name, *(_cell(metric, quality.get(metric)) for metric in metrics),
                *([_bits(quality.get("perplexity"), one.decided / bytes_)] if bytes_ else []),
                _cell("accuracy", measured.agreement.get(split)),
                numbers.MISSING if kl is None else numbers.significant(kl),
                numbers.MISSING if calibration is None else numbers.percent(calibration.ece)]

    return markdown(["", *map(metric_title, metrics), *(["bits per byte"] if bytes_ else []),
                     "agreement", "KL, nats", "ECE"], [row(*subject) for subject in subjects.items()])


def differences(runs: Mapping[str, Scores]) -> str:
    """What every way was worth over labels alone, paired, and what the interval allows to say; every seed."""
    facts = {name: {fact.title: fact for fact in score_table(scores).facts} for name, scores in runs.items()}
    titles = ["student − labels alone", "student − teacher", "distillation ratio"]
    one = next(iter(runs.values()))
    seeds = len(one.student.seeds)

    def row(name: str, scores: Scores) -> list[str]:
        found = facts[name]
        verdict = "" if scores.difference is None or scores.difference.excludes_zero() else "no difference measured"
        return [name, *(found[title].text if title in found else numbers.MISSING for title in titles), verdict,
                *(numbers.quality(scores.metric, value) for value in scores.student.seeds)]

    alone = [] if one.baseline is None else [["labels alone", *[numbers.MISSING] * len(titles), "", *(
        numbers.quality(one.metric, value) for value in one.baseline.seeds)]]
    return markdown(["", *titles, "", *(f"seed {number}" for number in range(1, seeds + 1))],
                    [*alone, *(row(name, scores) for name, scores in runs.items())])


def costs(runs: Mapping[str, Run]) -> str:
    """Processor time of a training step, by seed, and what lies on disk of what the teacher said."""
    first = next(iter(runs.values()))
    seeds = range(max(1, len(first.scores.student.seeds)))
    steps = {"labels alone": [_step(first, "baseline", seed) for seed in seeds],
             **{name: [_step(run, "student", seed) for seed in seeds] for name, run in runs.items()}}
    kept = {name: [numbers.MISSING] * 2 for name in steps}
    for name, run in runs.items():
        if exists(run.folder / "cache"):
            cache = contents(run.folder / "cache")
            kept[name] = [numbers.significant(cache.bytes_per_row), numbers.megabytes(cache.bytes + cache.head_bytes)]
    return markdown(["", *(f"ms a step, seed {seed + 1}" for seed in seeds), "cache, bytes a token", "in all"],
                    [[name, *(f"{1000 * one:.0f}" for one in each), *kept[name]] for name, each in steps.items()])


def sizes(scores: Scores) -> str:
    """What the models cost: parameters, size and speed."""
    table = score_table(scores)
    wanted = [number for number, column in enumerate(table.columns)
              if column.key in ("parameters", "size", "latency", "throughput")]
    return markdown(["", *(table.columns[number].title for number in wanted)],
                    [[row.title, *(str(row.cells[number]) for number in wanted)] for row in table.rows
                     if row.subject != "baseline"])


def _bits(perplexity: Interval | None, tokens: float) -> str:
    """Bits per byte of a perplexity per token; `tokens`: in a byte, the mean."""
    if perplexity is None:
        return numbers.MISSING
    value, low, high = (math.log2(one) * tokens for one in (perplexity.value, perplexity.low, perplexity.high))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _cell(metric: str, measured: Interval | None) -> str:
    if measured is None:
        return numbers.MISSING
    return f"{numbers.quality(metric, measured.value)} {numbers.interval(metric, measured)}".rstrip()


def _step(run: Run, role: str, seed: int) -> float:
    """Seconds of the processor for one optimiser step: the median over what was logged, whatever else the machine did."""
    stage = role if seed == 0 else f"{role}-{seed}"
    entries = [json.loads(line) for line in _lines(RunFolder(run.folder))]
    told = [(one["step"], one["processor_seconds"]) for one in entries
            if one["stage"] == stage and "processor_seconds" in one]
    rates = [(after - before) / (step - last) for (last, before), (step, after) in pairwise(told) if after > before]
    return median(rates) if rates else math.nan


def _stages(folder: RunFolder) -> dict[str, Any]:
    file = folder.path / "stages.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _lines(folder: RunFolder) -> list[str]:
    return folder.log.read_text(encoding="utf-8").splitlines() if folder.log.is_file() else []


def show(*parts: str) -> None:
    """Title and tables on standard output."""
    for part in parts:
        print(f"\n{part}")
