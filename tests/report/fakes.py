"""Run folders with made-up but plausible numbers: many classes, pictures, several seeds, regression."""

from __future__ import annotations

import base64
import io
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

from stilla.scores import (
    Bin,
    Calibration,
    ClassScore,
    Cost,
    Flip,
    Interval,
    Measured,
    PairedTest,
    Part,
    Scores,
)
from stilla.views import Picture, Text

RECIPE = """\
# Written by Stilla: every default that was chosen.
task: text-classification
data:
  train: reviews.parquet
  validation:
    split: 0.1
  max_length: 128
teacher:
  model: ./minilm-intents
student:
  layers: 3
distill:
- epochs: 3.0
  batch_size: 32
  learning_rate: 0.0001
  objectives:
  - kind: labels
    weight: 0.3
  - kind: logits
    divergence: forward_kl
    temperature: 2.0
    weight: 0.7
evaluate:
  baseline: true
  seeds: 1
export: [onnx, int8]
output: runs/intents
seed: 42
"""

ENVIRONMENT = {
    "stilla": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0",
    "machine": {"processor": "AMD EPYC 7B13", "cores": 2, "memory_gb": 16, "accelerator": None},
    "started": "2025-06-01T10:12:44Z", "seconds": 1832.4, "seeds": [42],
}

_WORDS = """transfer balance card pin travel notice exchange rate flight status weather alarm timer reminder
music playlist volume recipe calories meal order pizza restaurant reservation insurance change""".split()  # noqa: SIM905


def interval(value: float, half: float) -> Interval:
    return Interval(value, value - half, value + half)


def cost(parameters: int, latency: float, *, bytes_each: float = 4.0) -> Cost:
    return Cost(parameters, int(parameters * bytes_each), 2.0 * parameters * 24, latency, 1.3 * latency,
                2200 / latency, 32, 40.0 * latency, "processor time × 15 W (estimated)")


def calibration(accuracy: float, overconfident: float, total: int = 4500) -> Calibration:
    draw = random.Random(int(1000 * accuracy))
    weights = [math.exp(4 * index / 10) for index in range(2, 10)]
    bins = []
    for index, weight in zip(range(2, 10), weights, strict=True):
        confidence = (index + 0.5) / 10
        right = min(1.0, max(0.0, confidence - overconfident * (1.2 - confidence) + draw.gauss(0, 0.015)))
        bins.append(Bin(confidence, right, round(total * weight / sum(weights))))
    error = sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / total
    return Calibration(error, (Bin(0.0, 0.0, 0), *bins))


def measured(accuracy: float, price: Cost, *, half: float = 0.009, agreement: float | None = None,
             overconfident: float = 0.05, seeds: Sequence[float] = ()) -> Measured:
    quality = {split: {"accuracy": interval(accuracy + shift, half),
                       "macro_f1": interval(accuracy + shift - 0.004, half)}
               for split, shift in (("test", 0.0), ("validation", 0.006))}
    calibrated = {"test": calibration(accuracy, overconfident)}
    if agreement is None:
        return Measured(quality, price, calibration=calibrated, seeds=tuple(seeds))
    agreed = {"test": interval(agreement, 0.007), "validation": interval(agreement, 0.01)}
    return Measured(quality, price, agreed, {"test": 0.35 * (1 - agreement)}, calibrated, tuple(seeds))


def intents(classes: int = 150) -> Scores:
    """Text, 150 classes, baseline, exports, flips: everything that a page can hold."""
    subjects = {
        "teacher": measured(0.951, cost(22_771_062, 11.8), half=0.006, overconfident=0.03),
        "baseline": measured(0.921, cost(17_447_574, 6.1), half=0.008, agreement=0.927, overconfident=0.12),
        "student": measured(0.938, cost(17_447_574, 6.1), half=0.007, agreement=0.956, overconfident=0.05),
        "onnx": replace(measured(0.938, cost(17_447_574, 3.2), half=0.007, agreement=0.956), calibration={}),
        "int8": replace(measured(0.934, cost(17_447_574, 1.9, bytes_each=1.04), half=0.007, agreement=0.949),
                        calibration={}),
    }
    return Scores(
        task="text-classification", metric="accuracy", higher_is_better=True, split="test",
        examples={"train": 15000, "validation": 3000, "test": 4500}, subjects=subjects,
        gap=Interval(-0.013, -0.019, -0.008), difference=Interval(0.017, 0.010, 0.024),
        retention=Interval(0.9863, 0.9801, 0.9917), ratio=Interval(0.567, 0.381, 0.742),
        tests={"examples": PairedTest(0.000999, 0.000999, 4500)},
        verdict="The student keeps 98.6 % of the teacher's accuracy with 1.3× fewer parameters and 1.9× the "
                "speed; distillation gained 1.7 points over training on labels alone (1.0 to 2.4).",
        notes=("12 of 15,000 training texts were longer than 128 tokens and were cut.",
               "Energy is estimated from processor time; it was not measured."),
        flipped={"lost": 118, "won": 61, "moved": 27}, flips=text_flips(60), classes=class_scores(classes),
        decided=4500, slices=slices(), shifted=shifted(),
    )


def slices() -> tuple[Part, ...]:
    """In scope and out of it, languages, lengths; one of them worse beyond chance, one too small."""
    sizes = {("scope", "in scope"): (3500, -0.004), ("scope", "out of scope"): (1000, -0.046),
             ("language", "de"): (1510, -0.011), ("language", "en"): (2700, -0.012), ("language", "pt-BR"): (268, -0.021),
             ("language", "zu"): (22, 0.0), ("length", "up to 6"): (1200, -0.016),
             ("length", "above 6, up to 9"): (1130, -0.011), ("length", "above 9, up to 14"): (1050, -0.013),
             ("length", "above 14"): (1120, -0.012)}
    return tuple(part(column, name, examples, gap) for (column, name), (examples, gap) in sizes.items())


def shifted() -> tuple[Part, ...]:
    return part("", "typos", 4500, -0.031), part("", "call centre", 640, -0.02)


def part(column: str, name: str, examples: int, gap: float) -> Part:
    half = 0.6 / math.sqrt(examples)
    levels = {"teacher": 0.951, "baseline": 0.934 + gap, "student": 0.951 + gap, "onnx": 0.951 + gap, "int8": 0.947 + gap}
    if examples < 30:
        return Part(column, name, examples, {subject: interval(level, 0.0) for subject, level in levels.items()})
    return Part(column, name, examples, {subject: interval(level, half) for subject, level in levels.items()},
                interval(gap, 0.7 * half), interval(0.017, 0.8 * half), interval(gap + 0.013, 1.1 * half))


def class_scores(number: int) -> tuple[ClassScore, ...]:
    draw = random.Random(3)
    found = []
    for index in range(number):
        teacher = min(1.0, draw.betavariate(30, 2))
        student = min(1.0, max(0.2, teacher + draw.gauss(-0.012, 0.03)))
        name = f"{draw.choice(_WORDS)}_{draw.choice(_WORDS)}_{index}"
        found.append(ClassScore(name, 30, {"teacher": teacher, "student": student,
                                           "baseline": max(0.1, student + draw.gauss(-0.015, 0.03))}))
    return tuple(found)


def text_flips(number: int) -> tuple[Flip, ...]:
    draw = random.Random(5)
    flips = []
    for index in range(number):
        text = " ".join(draw.choice(_WORDS) for _ in range(draw.choice((6, 9, 14, 22))))
        label, wrong = draw.sample([f"{one}_{other}" for one in _WORDS[:9] for other in _WORDS[9:14]], 2)
        kind = ("lost", "lost", "won", "moved")[index % 4]
        teacher = {"lost": label, "won": wrong, "moved": "alarm_other"}[kind]
        student = {"lost": wrong, "won": label, "moved": wrong}[kind]
        flips.append(Flip(f"test-{index}", Text(f"can you {text}?"), label,
                          {"teacher": teacher, "student": student, "baseline": student},
                          {"teacher": 0.97 - index * 0.005, "student": 0.93 - index * 0.007,
                           "baseline": 0.6}, kind))
    return tuple(flips)


def picture(digit: int) -> str:
    image = Image.new("L", (8, 8))
    ImageDraw.Draw(image).text((1, -2), str(digit), fill=230)
    written = io.BytesIO()
    image.resize((32, 32), Image.Resampling.BICUBIC).save(written, "PNG")
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def digits() -> Scores:
    """Pictures, ten classes, three seeds, and no difference that could be measured."""
    def subject(mean: float, seeds: Sequence[float], price: Cost, agreement: float | None) -> Measured:
        return measured(mean, price, half=0.012, agreement=agreement, seeds=seeds)

    names = [str(digit) for digit in range(10)]
    draw = random.Random(1)
    flips = []
    for index, digit in enumerate(draw.choices(range(10), k=17)):
        right, wrong, kind = str(digit), str((digit + 3) % 10), "lost" if index % 3 else "won"
        said = (right, wrong) if kind == "lost" else (wrong, right)
        flips.append(Flip(f"test-{index}", Picture(picture(digit)), right, dict(zip(("teacher", "student"), said)),
                          {"teacher": 0.9, "student": 0.71}, kind))
    return Scores(
        task="image-classification", metric="accuracy", higher_is_better=True, split="test",
        examples={"train": 1257, "validation": 180, "test": 360},
        subjects={
            "teacher": measured(0.983, cost(809_000, 2.9), half=0.011, overconfident=0.02),
            "baseline": subject(0.961, (0.956, 0.964, 0.963), cost(158_000, 1.1), 0.967),
            "student": subject(0.967, (0.958, 0.972, 0.970), cost(158_000, 1.1), 0.975),
            "int8": measured(0.966, cost(158_000, 0.6, bytes_each=1.2), half=0.012, agreement=0.975),
        },
        gap=Interval(-0.016, -0.03, -0.004), difference=Interval(0.006, -0.006, 0.018),
        retention=Interval(0.984, 0.971, 0.997), ratio=None,
        tests={"seeds": PairedTest(0.5, 0.25, 3), "examples": PairedTest(0.31, 0.000999, 360)},
        verdict="The student keeps 98.4 % of the teacher's accuracy with 5.1× fewer parameters; "
                "no difference measured between distillation and training on labels alone.",
        notes=("distillation ratio is not defined: the teacher is no better than the baseline",),
        flipped={"lost": 11, "won": 6}, flips=tuple(flips), decided=360,
        classes=tuple(ClassScore(name, 36, {"teacher": 0.98 + 0.001 * index, "student": 0.99 - 0.005 * index,
                                            "baseline": 0.96}) for index, name in enumerate(names)),
    )


def regression() -> Scores:
    """A number to predict: no classes, no calibration, no flips, no baseline, little measured."""
    def subject(value: float, price: Cost) -> Measured:
        quality = {"pearson": interval(value, 0.02), "rmse": interval(1.1 - value, 0.03)}
        return Measured({"validation": quality}, price)

    return Scores(
        task="text-classification", metric="pearson", higher_is_better=True, split="validation",
        examples={"train": 5000, "validation": 500},
        subjects={"teacher": subject(0.884, Cost(109_482_240, 437_928_960)),
                  "student": subject(0.861, Cost(66_955_008, 267_820_032))},
        gap=Interval(-0.023, -0.034, -0.011), retention=None,
        verdict="The student's pearson is 0.861 against the teacher's 0.884, with 1.6× fewer parameters.",
        notes=("retention is not defined: pearson can be zero or negative",),
    )


def write_run(
    folder: Path, scores: Scores, *, seeds: int = 1, recipe: str = RECIPE, noise: int = 7,
    environment: Mapping[str, object] = ENVIRONMENT, terms: Sequence[str] = ("labels", "logits"),
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    scores.dump(folder / "scores.json")
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    lines = [json.dumps(line) for line in log(seeds, terms, scores.metric, noise)]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def log(seeds: int, terms: Sequence[str], metric: str, noise: int) -> list[dict[str, object]]:
    draw = random.Random(noise)
    best = {"teacher": 0.957, "baseline": 0.927, "student": 0.944 + draw.gauss(0, 0.004)}
    found: list[dict[str, object]] = []
    for stage in ("teacher", "baseline", "student"):
        for seed in range(1 if stage == "teacher" else seeds):
            name = f"{stage}-{seed}" if seed else stage
            names = terms if stage == "student" else ("labels",)
            for step in range(10, 1410, 10):
                parts = {term: (4.2 * math.exp(-step / 260) + 0.12) / (index + 1) + abs(draw.gauss(0, 0.04))
                         for index, term in enumerate(names)}
                found.append({"stage": name, "step": step, "progress": step / 1400, "terms": parts,
                              "loss": sum(parts.values()), "learning_rate": 1e-4, "seconds": 0.02 * step})
                if step % 200 == 0:
                    value = best[stage] - 0.5 * math.exp(-step / 180) + draw.gauss(0, 0.002)
                    found.append({"stage": name, "step": step, "evaluation": {metric: value, "runtime": 1.5}})
    return found
