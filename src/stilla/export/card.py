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

# What the Hub calls a metric, where it has another name for it.
_HUB_METRICS = {
    "subset_accuracy": "accuracy",
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
}
# What transformers and the Hub call the pipelines of tasks that have another name here.
_PIPELINES = {"causal-lm": "text-generation", "masked-lm": "fill-mask", "seq2seq": "translation",
              "embedding": "sentence-similarity", "reranking": "text-ranking", "image-text": "zero-shot-image-classification",
              "semantic-segmentation": "image-segmentation", "recommendation": "other",
              "speech-recognition": "automatic-speech-recognition", "text-to-speech": "text-to-speech"}
_GIVEN = {"masked-lm": 'f"An {model.tokenizer.mask_token}."', "semantic-segmentation": '"picture.png"',
          "object-detection": '"picture.png"'}
_SEQ2SEQ_USAGE = """\
```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForSeq2SeqLM.from_pretrained("path/to/this/folder")
written = model.generate(**tokenizer("An example.", return_tensors="pt"), max_new_tokens=128)
print(tokenizer.decode(written[0], skip_special_tokens=True))
```
"""
_EMBEDDING_USAGE = """\
```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
print(model.similarity(model.encode_query(["A question?"]), model.encode_document(["A text.", "Another one."])))
```
"""
_RERANKING_USAGE = """\
```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("path/to/this/folder")
print(model.predict([("A question?", "A text."), ("A question?", "Another one.")]))
```
"""
_IMAGE_TEXT_USAGE = """\
```python
from transformers import pipeline

classify = pipeline("zero-shot-image-classification", model="path/to/this/folder")
print(classify("picture.png", candidate_labels=["daisy", "rose"], hypothesis_template="a photo of a {}"))
```
"""
_IMAGE_TEXT_TO_TEXT_USAGE = """\
```python
from transformers import pipeline

describe = pipeline("image-text-to-text", model="path/to/this/folder")
parts = [{"type": "image", "image": "picture.png"}, {"type": "text", "text": "Describe the picture."}]
said = describe(text=[{"role": "user", "content": parts}], max_new_tokens=64)
print(said[0]["generated_text"][-1]["content"])
```
"""
_RECOMMENDATION_USAGE = """\
```python
import json
from pathlib import Path

import torch
import transformers

folder = "path/to/this/folder"
known = json.loads(Path(folder, "items.json").read_text(encoding="utf-8"))
numbers = {item: number for number, item in enumerate(known["items"])}
model = getattr(transformers, known["model"]).from_pretrained(folder)


def recommend(history, k=10):
    \"\"\"The ids of the k items that fit best behind these, the latest last.\"\"\"
    taken = [numbers[item] for item in history if item in numbers]
    ids = taken + ([] if known["mask"] is None else [known["mask"]])
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([ids[-known["max_length"]:]])).logits[0, -1, :len(numbers)]
    if known["seen"] == "leave_out":
        scores[taken] = -torch.inf
    return [known["items"][number] for number in scores.topk(k).indices]


print(recommend(known["items"][:3]))
```
"""
_TEXT_TO_SPEECH_USAGE = """\
```python
import torch
from transformers import AutoTokenizer, SpeechT5ForTextToSpeech, SpeechT5HifiGan

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = SpeechT5ForTextToSpeech.from_pretrained("path/to/this/folder")
vocoder = SpeechT5HifiGan.from_pretrained("microsoft/speecht5_hifigan")
ids = tokenizer("what is to be said", return_tensors="pt").input_ids
samples = model.generate_speech(ids, torch.zeros(1, model.config.speaker_embedding_dim), vocoder=vocoder)
```
"""
_OTHER_USAGE = {"seq2seq": _SEQ2SEQ_USAGE, "embedding": _EMBEDDING_USAGE, "reranking": _RERANKING_USAGE,
                "image-text": _IMAGE_TEXT_USAGE, "image-text-to-text": _IMAGE_TEXT_TO_TEXT_USAGE,
                "recommendation": _RECOMMENDATION_USAGE, "text-to-speech": _TEXT_TO_SPEECH_USAGE}
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
    parts: str = "",
    subject: str = "student",
    transformers: bool = True,
    unlabelled: Sequence[str] = (),
) -> str:
    """The whole card, front matter included.

    Args:
        name: of the model. table: the scores in Markdown. usage: how to load it, see `transformers_usage` and
            `plain_usage`. transformers: whether that library loads it.
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
    front = _front_matter(scores, subject, name, teacher, data, transformers=transformers)
    return f"---\n{front}---\n\n" + "\n\n".join(part for part in sections if part) + "\n"


def transformers_usage(kind: str, heads: Mapping[str, str] = MappingProxyType({})) -> str:
    """How to load a Hugging Face folder for a task (whose kind is the name of its pipeline, but for language models).

    heads: of a student of several tasks, by name what each head does.
    """
    if heads:
        lines = "".join(f'{name} = pipeline("{head}", model="path/to/this/folder/{name}")\nprint({name}("An example."))\n'
                        for name, head in heads.items())
        return ("Every head lies in a folder of its own, with the encoder that all share.\n\n```python\n"
                f"from transformers import pipeline\n\n{lines}```\n")
    if kind in _OTHER_USAGE:
        return _OTHER_USAGE[kind]
    given = _GIVEN.get(kind, '"picture.png"' if kind.startswith("image") else '"An example."')
    return (f"```python\nfrom transformers import pipeline\n\nmodel = pipeline(\"{_PIPELINES.get(kind, kind)}\", "
            f"model=\"path/to/this/folder\")\nprint(model({given}))\n```\n")


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


def _front_matter(scores: Scores, subject: str, name: str, teacher: str, data: str, *, transformers: bool) -> str:
    results = [
        EvalResult(task_type=_hub_task(scores) or scores.task, dataset_type=_last(data), dataset_name=_last(data),
                   dataset_split=split, metric_type=_hub_metric(metric), metric_name=metric.replace("_", " "),
                   metric_value=round(one.value, 6))
        for split, metrics in scores.subjects[subject].quality.items() if not split.startswith(SHIFTED)  # of other data
        for metric, one in metrics.items()
    ]
    base = teacher if _on_hub(teacher) else None
    tags = ["knowledge-distillation", "stilla"] if subject == "student" else ["stilla"]
    text: str = ModelCardData(
        base_model=base, library_name="transformers" if transformers else "pytorch", pipeline_tag=_hub_task(scores),
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


def _hub_task(scores: Scores) -> str | None:
    if scores.parts:
        return None  # a folder of several, none of which it is itself
    pipeline = _PIPELINES.get(scores.task, scores.task)
    return "summarization" if pipeline == "translation" and scores.metric.startswith("rouge") else pipeline


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
