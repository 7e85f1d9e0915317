"""A folder to deploy: the exported file with all that turns an example into its inputs and its logits into names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from stilla.export import HEADS, MODEL, TOWER, main_file
from stilla.export._folders import replaced
from stilla.export._models import config_of
from stilla.export._quiet import quiet, require_onnx
from stilla.export.loops import writing_readme
from stilla.export.parts import parts_readme
from stilla.export.session import OnnxModel
from stilla.tasks.base import Head, Prepared, Task
from stilla.tasks.language.writing import Writes
from stilla.tasks.shared.classification import THRESHOLDS

_PREPARING = {
    "input_ids": """\
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
inputs = tokenizer(["An example."], padding=True, truncation=True, return_tensors="np")
""",
    "pixel_values": """\
from PIL import Image
from transformers import AutoImageProcessor

processor = AutoImageProcessor.from_pretrained(".", backend="pil")
inputs = processor([Image.open("picture.png").convert("RGB")], return_tensors="np")
""",
}
"""Of models whose task says nothing else."""

_READING = {
    "multi_label_classification": "[[labels[str(index)] for index in (row > 0).nonzero()[0]] for row in logits]",
    "regression": "logits[:, 0]",
    "numbers": "[{labels[str(index)]: float(one) for index, one in enumerate(row)} for row in logits]",
}
_TUNED = ("[[name for name, logit in zip(labels.values(), row) if 1 / (1 + math.exp(-logit)) > thresholds[name]] "
          "for row in logits]")
"""Of several labels, by the thresholds that were chosen on validation data."""
_NAMES = ('names = json.loads(Path("config.json").read_text(encoding="utf-8"))["label_names"]\n'
          "labels = {str(index): name for index, name in enumerate(names)}\n")
"""As their configs have them."""
_LABELS = 'labels = json.loads(Path("config.json").read_text(encoding="utf-8"))["id2label"]\n'
_FOUND = "detections"
"""What detectors give."""
_BOXES = f"""\
A row of `{_FOUND}` is a guess: for each class the log-odds that it is one (a sigmoid gives the probability; most guesses are
nothing), then x and y of the centre, width and height, as shares of the picture.
"""
_BOXES_READ = "[(labels[str(row[:-4].argmax())], row[:-4].max(), row[-4:]) for row in detections[0] if row[:-4].max() > 0]"
_ON_CANVAS = """\
from PIL import Image
from transformers import AutoImageProcessor

processor = AutoImageProcessor.from_pretrained(".", backend="pil")
pictures, canvas = [Image.open("picture.png").convert("RGB")], {{"height": {height}, "width": {width}}}
size = {{}}  # the processor's own
high, wide = processor(pictures, do_pad=False, return_tensors="np")["pixel_values"].shape[2:]
if high > canvas["height"] or wide > canvas["width"]:  # as on end, where all others lay: as large as fits
    size = {{"size": {{"max_height": canvas["height"], "max_width": canvas["width"]}}}}
inputs = processor(pictures, pad_size=canvas, return_tensors="np", **size)
"""
"""Of detectors that read pictures of several sizes: on one of a single size, with a mask that says where they end."""
_CLASSES = "[labels[str(index)] for index in logits.argmax(-1)]"

Writer = Callable[[nn.Module, Task, Prepared, Path], str]


def write_folder(
    write: Writer, model: nn.Module, processor: Any | None, task: Task, prepared: Prepared, folder: Path
) -> Path:
    """See `stilla.export.export`."""
    require_onnx()
    numbers = sum(value.numel() for value in model.state_dict().values() if isinstance(value, Tensor))
    config = config_of(model)
    older = main_file(folder)
    # float32, and beside it for a while what is made from it; decoders are written twice, for the first and later steps
    size = 8 if isinstance(task, Writes) else 5
    with replaced(folder, needed=size * numbers, holds=MODEL if older is None else older.name) as new:
        said = write(model, task, prepared, new / MODEL)
        with quiet():
            if processor is not None:
                processor.save_pretrained(new)
            if config is not None:
                config.save_pretrained(new)
            if isinstance(task, Writes) and isinstance(model, PreTrainedModel) and model.generation_config is not None:
                model.generation_config.save_pretrained(new)
        made = main_file(new)
        assert made is not None  # what `write` wrote
        text = writing_readme(made, said, model, task.asking(processor)) if isinstance(task, Writes) else \
            parts_readme(made, said, task.program(model, processor)) if task.by_graphs else \
            towers_readme(made, said) if task.towers else readme(OnnxModel(made), said, config, task, processor)
        (new / "README.md").write_text(text, encoding="utf-8")
    return folder / made.name


def write_heads(write: Writer, heads: Mapping[str, Head], folder: Path) -> Path:
    """A folder for each of several heads, each to be deployed by itself, and the list of them."""
    require_onnx()
    older = main_file(folder)
    numbers = sum(value.numel() for one in heads.values() for value in one.model.state_dict().values())
    with replaced(folder, needed=5 * numbers, holds=HEADS if older is None else older.name) as new:
        for name, one in heads.items():
            write_folder(write, one.model, one.processor, one.task, one.prepared, new / name)
        (new / HEADS).write_text(json.dumps({name: f"{name}/{MODEL}" for name in heads}, indent=1), encoding="utf-8")
    return folder / HEADS


def towers_readme(main: Path, said: str) -> str:
    """The same for towers of pictures and texts."""
    text = OnnxModel(main.with_name("text_model.onnx"))
    takes = ", ".join(f"`{name}`" for name in text.inputs)
    padding = "True" if "attention_mask" in text.inputs else '"max_length"'
    return f"""\
# {TOWER}, text_model.onnx

{said} `{TOWER}` takes `pixel_values`, `text_model.onnx` {takes}; both give `{text.output}`, vectors of length 1.
Any batch size.

```python
import onnxruntime
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer


def vectors(file, inputs):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {{one.name: inputs[one.name] for one in session.get_inputs()}})[0]


processor, tokenizer = AutoImageProcessor.from_pretrained(".", backend="pil"), AutoTokenizer.from_pretrained(".")
pictures = processor([Image.open("picture.png").convert("RGB")], return_tensors="np")
texts = tokenizer(["An example.", "Another one."], padding={padding}, truncation=True, return_tensors="np")
print(vectors("{TOWER}", pictures) @ vectors("text_model.onnx", texts).T)
```
"""


def readme(
    file: OnnxModel, said: str, config: PreTrainedConfig | None, task: Task | None = None, processor: Any | None = None
) -> str:
    """What is in the file and how to run it, as a program that works in the folder."""
    told = ""
    usual = next((text for name, text in _PREPARING.items() if name in file.inputs),
                 f"inputs = ...  # arrays by name: {', '.join(file.inputs)}\n")
    preparing = (task.preparing_by(processor) if task is not None else "") or usual
    reading = "" if task is None else task.reading.strip()
    imports, labels, printed = "", "", f"print({file.output})"
    if reading and "labels" not in reading:
        printed = reading
    elif config is not None and config.id2label and (file.output == "logits" or reading):
        imports = "import json\nfrom pathlib import Path\n\n"
        labels = _LABELS if "id2label" in config.to_dict() else _NAMES
        kind = "regression" if len(config.id2label) == 1 else config.problem_type or ""
        kind = "numbers" if kind == "regression" and len(config.id2label) > 1 else kind
        printed = reading or f"print({_READING.get(kind, _CLASSES)})"
        if THRESHOLDS in vars(config) and not reading:
            imports = imports.replace("import json\n", "import json\nimport math\n")
            labels += 'thresholds = json.loads(Path("config.json").read_text(encoding="utf-8"))["thresholds"]\n'
            printed = f"print({_TUNED})"
    if config is not None and file.output == _FOUND:
        imports, told, printed = "import json\nfrom pathlib import Path\n\n", f"\n{_BOXES}", f"print({_BOXES_READ})"
        labels = _LABELS
        if "pixel_mask" in file.inputs:  # a canvas of one size, and where the picture ends on it
            height, width = file.shapes["pixel_values"][2:]
            preparing = _ON_CANVAS.format(height=height, width=width)
            told += (f"\nIt takes pictures of up to {height} x {width} pixels (height, width), with zeros below and to the\n"
                     "right of them up to that; the program makes those smaller that the processor leaves larger.\n")
    return f"""\
# {MODEL}

{said} Inputs: {', '.join(f'`{name}`' for name in file.inputs)}; output: `{file.output}`. Any batch size.
{told}
```python
{imports}import onnxruntime
{preparing}
session = onnxruntime.InferenceSession("{MODEL}", providers=["CPUExecutionProvider"])
names = [one.name for one in session.get_inputs()]
({file.output},) = session.run(["{file.output}"], {{name: inputs[name] for name in names}})
{labels}{printed}
```
"""
