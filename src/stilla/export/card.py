"""The README of student or baseline: a model card made of the scores, with front matter that the Hugging Face Hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from huggingface_hub import EvalResult, ModelCardData
from torch import nn

from stilla.data import SHIFTED
from stilla.errors import all_of, counted
from stilla.export._folders import write_text
from stilla.export._models import label_names, own_module
from stilla.scores import Measured, Scores
from stilla.tasks.base import Task

# What the Hub calls a metric, where it has another name for it.
_HUB_METRICS = {
    "subset_accuracy": "accuracy",
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
}
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def write_card(folder: Path, text: str) -> Path:
    """Put a card (or any text) beside a model as its README.

    Raises:
        ExportError: it cannot be written.
    """
    path = folder / "README.md"
    write_text(path, text)
    return path


def model_card(
    scores: Scores,
    *,
    name: str,
    table: str,
    teacher: str,
    student: str,
    data: str,
    usage: str,
    pipeline: str,
    parts: str = "",
    subject: str = "student",
    transformers: bool = True,
    unlabelled: Sequence[str] = (),
) -> str:
    """The whole card, front matter included.

    Args:
        name: of the model. table: the scores in Markdown. usage: how to load it, see `transformers_usage` and
            `plain_usage`. pipeline: what the Hub calls the task, see `Task.called`.
        transformers: whether that library loads it.
        teacher: a hub name (linked as the base model) or a path (only its last part is written).
        student: how it came from the teacher, as the end of a sentence ("3 of its 12 layers").
        data: the training data: a dataset name or a path (likewise); without labelled ones the validation data.
        unlabelled: training data for which the teacher alone answered (likewise).
        parts: what was measured apart, in Markdown. subject: `student` or `baseline`, whose card it is.
    """
    named = [_code(data)] if scores.learnt.get("labelled", 1) else []
    if unlabelled:
        named.append(f"unlabelled examples of {all_of([_code(one) for one in unlabelled])}")
    origin = f"distilled from {_code(teacher)}: {student}. Trained on {all_of(named)}." if subject == "student" else \
        f"trained on the labels of {_code(data)} alone. It started from {_code(teacher)}: {student}."
    sections = [
        f"# {name}",
        scores.verdict,
        f"A student for {scores.task}, {origin}",
        f"## Scores\n\nOn the {scores.split} data ({counted(scores.examples.get(scores.split, 0), 'example')}), on the "
        f"machine that it was trained on. Brackets are 95 % intervals.\n\n{table.strip()}",
        parts.strip(),
        *([f"## Notes\n\n{_list(scores.notes)}"] if scores.notes else []),
        f"## Use\n\n{usage.strip()}",
        f"## Limits\n\n{_list(_limits(scores, subject))}",
    ]
    front = _front_matter(scores, subject, name, teacher, data, _hub_task(scores, pipeline), transformers=transformers)
    return f"---\n{front}---\n\n" + "\n\n".join(part for part in sections if part) + "\n"


def transformers_usage(task: type[Task], heads: Mapping[str, type[Task]] = MappingProxyType({})) -> str:
    """How to load a Hugging Face folder of a task and ask it something.

    heads: of a student of several tasks, by name what each head does.
    """
    if heads:
        lines = "".join(f'{name} = pipeline("{head.called()}", model="path/to/this/folder/{name}")\n'
                        f"print({name}({head.given}))\n" for name, head in heads.items())
        own = "".join(f"\n`{name}`:\n\n```python\n{_within(head.usage, name)}```\n"
                      for name, head in heads.items() if head.usage)
        return ("Every head lies in a folder of its own, with the encoder that all share.\n\n```python\n"
                f"from transformers import pipeline\n\n{lines}```\n{own}")
    code = task.usage or (f"from transformers import pipeline\n\nmodel = pipeline(\"{task.called()}\", "
                          f"model=\"path/to/this/folder\")\nprint(model({task.given}))\n")
    return f"```python\n{code}```\n"


def _within(code: str, name: str) -> str:
    return code.replace("path/to/this/folder", f"path/to/this/folder/{name}")


def plain_usage(model: nn.Module, labels: Sequence[str] = ()) -> str:
    """How to load a module that is not Hugging Face's: made by its own class or function, then filled.

    Args:
        labels: names of its outputs; by default those of its config, if it has one.
    """
    own = type(own_module(model))
    where, name, labels = own.__module__, own.__qualname__, labels or label_names(model)
    named = f" Outputs, in order: {', '.join(f'`{label}`' for label in labels)}." if labels else ""
    return (f"Weights of a `{where}.{name}`; its code is not here.{named}\n\n"
            f"```python\nfrom safetensors.torch import load_file\nfrom {where} import {name}\n\n"
            f"model = {name}(...)  # as it was made for training\n"
            'model.load_state_dict(load_file("model.safetensors"))\nmodel.eval()\n```\n')


def _front_matter(scores: Scores, subject: str, name: str, teacher: str, data: str, called: str | None, *,
                  transformers: bool) -> str:
    results = [
        EvalResult(task_type=called or scores.task, dataset_type=_last(data), dataset_name=_last(data),
                   dataset_split=split, metric_type=_hub_metric(metric), metric_name=metric.replace("_", " "),
                   metric_value=round(one.value, 6))
        for split, metrics in scores.subjects[subject].quality.items() if not split.startswith(SHIFTED)  # of other data
        for metric, one in metrics.items()
    ]
    base = teacher if _on_hub(teacher) else None
    tags = ["knowledge-distillation", "stilla"] if subject == "student" else ["stilla"]
    text: str = ModelCardData(
        base_model=base, library_name="transformers" if transformers else "pytorch", pipeline_tag=called,
        tags=tags, model_name=name, eval_results=results).to_yaml()
    return text.rstrip("\n") + "\n"


def _limits(scores: Scores, subject: str) -> list[str]:
    helped = subject == "student"
    flipped = sum(scores.flipped.values())
    total, what = scores.decided, scores.units
    limits = ["It was measured on data like its training data. On other texts, pictures, languages or times it may be worse, "
              "and worse than its teacher by more than the table says."]
    if helped and flipped and total:
        parts = ", ".join(f"{count:,} {kind}" for kind, count in scores.flipped.items())
        limits.append(f"It decides differently from its teacher on {flipped:,} of {total:,} {what} ({parts}).")
    if (ece := _ece(scores.subjects[subject], scores.split)) is not None:
        limits.append(f"Its confidences are off by {100 * ece:.1f} points on average (expected calibration error).")
    limits += [*(["What its teacher gets wrong, or prefers without reason, it has learnt too."] if helped else []),
               "Whether it may be used and passed on follows from the licences of the teacher and of the data."]
    return limits


def _ece(one: Measured, split: str) -> float | None:
    calibration = one.calibration.get(split)
    return None if calibration is None else calibration.ece


def _hub_task(scores: Scores, called: str) -> str | None:
    if scores.parts:
        return None  # a folder of several, none of which it is itself
    return "summarization" if called == "translation" and scores.metric.startswith("rouge") else called


def _hub_metric(metric: str) -> str:
    metric = metric.rpartition("/")[2]
    averaged = "rouge" if metric.startswith("rouge") else metric.removeprefix("macro_").removeprefix("micro_")
    return _HUB_METRICS.get(averaged, averaged)


def _on_hub(source: str) -> bool:
    return _HUB_NAME.fullmatch(source) is not None and not Path(source).exists()


def _last(source: str) -> str:
    """Of a path only its last part: where things lay on somebody's disk is nobody's business."""
    return source if _on_hub(source) else Path(source).name


def _code(source: str) -> str:
    return f"`{_last(source)}`"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
