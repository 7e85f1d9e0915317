"""A folder to deploy: the exported file with all that turns an example into its inputs and its logits into names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig

from stilla.export import MODEL
from stilla.export._folders import replaced
from stilla.export._models import config_of
from stilla.export._quiet import quiet, require_onnx
from stilla.export.session import OnnxModel
from stilla.tasks.base import Prepared, Task

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

_READING = {
    "multi_label_classification": "[[labels[str(index)] for index in (row > 0).nonzero()[0]] for row in logits]",
    "regression": "logits[:, 0]",
}
_CLASSES = "[labels[str(index)] for index in logits.argmax(-1)]"

Writer = Callable[[nn.Module, Task, Prepared, Path], str]


def write_folder(
    write: Writer, model: nn.Module, processor: Any | None, task: Task, prepared: Prepared, folder: Path
) -> Path:
    """See `stilla.export.export`."""
    require_onnx()
    numbers = sum(value.numel() for value in model.state_dict().values() if isinstance(value, Tensor))
    config = config_of(model)
    # float32, and beside it for a while what is made from it
    with replaced(folder, needed=5 * numbers, holds=MODEL) as new:
        said = write(model, task, prepared, new / MODEL)
        with quiet():
            if processor is not None:
                processor.save_pretrained(new)
            if config is not None:
                config.save_pretrained(new)
        text = readme(OnnxModel(new / MODEL), said, config)
        (new / "README.md").write_text(text, encoding="utf-8")
    return folder / MODEL


def readme(file: OnnxModel, said: str, config: PreTrainedConfig | None) -> str:
    """What is in the file and how to run it, as a program that works in the folder."""
    main = next((name for name in file.inputs if name in _PREPARING), None)
    preparing = _PREPARING[main] if main else f"inputs = ...  # arrays by name: {', '.join(file.inputs)}\n"
    imports, labels, reading = "", "", "logits"
    if config is not None and config.id2label:
        imports = "import json\nfrom pathlib import Path\n\n"
        labels = 'labels = json.loads(Path("config.json").read_text(encoding="utf-8"))["id2label"]\n'
        reading = _READING.get(config.problem_type or "", _CLASSES)
    return f"""\
# {MODEL}

{said} Inputs: {', '.join(f'`{name}`' for name in file.inputs)}; output: `logits`. Any batch size.

```python
{imports}import onnxruntime
{preparing}
session = onnxruntime.InferenceSession("{MODEL}", providers=["CPUExecutionProvider"])
names = [one.name for one in session.get_inputs()]
(logits,) = session.run(["logits"], {{name: inputs[name] for name in names}})
{labels}print({reading})
```
"""
