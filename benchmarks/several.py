"""Two tasks for one student: intents (CLINC150) and parts of speech (UD English EWT), MiniLM as the teacher of both.

    python -m benchmarks.several --data FOLDER --output runs/several

The teacher is fine-tuned with a head for each, some of its layers become the student, and the same student is trained on
labels alone. With `--apart` every task has its own teacher, student and labels alone instead, for comparison.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks import inputs
from benchmarks.students import distil, parser, show


def main() -> None:
    options = _options()
    parts = _parts(options)
    whole = options.output
    if options.apart:
        for name, part in parts.items():
            options.output = whole / name
            show(name, distil(options, part, inputs.minilm()))
        return
    options.output = whole / "both"
    base = {"task": "several", "data": {"parts": parts, "temperature": options.temperature}}
    scores = distil(options, base, inputs.minilm())
    show("both", scores)
    for name in parts:
        show(name, {layers: one.parts[name] for layers, one in scores.items()})


def _parts(options: argparse.Namespace) -> dict[str, Any]:
    clinc, english = inputs.clinc150(options.data), inputs.ud_english(options.data)
    intents, tags = (min(count, options.limit or count) for count in (options.intents, options.tags))
    of_intents = {**_files(clinc), "text": "text", "label": "intent", "limit": intents, "augment": "none"}
    of_tags = {**_files(english), "tokens": "tokens", "tags": "upos", "limit": tags}
    return {"intents": {"task": "text-classification", "data": of_intents},
            "tags": {"task": "token-classification", "data": of_tags}}


def _files(folder: Path) -> dict[str, Any]:
    """A part of the training data for validation: it is looked at after every epoch."""
    return {"train": str(folder / "train.parquet"), "validation": {"split": 0.05}, "test": str(folder / "test.parquet")}


def _options() -> argparse.Namespace:
    made = parser(__doc__, "runs/several", layers=[3], seeds=1, teacher_epochs=6.0, teacher_learning_rate=3e-4, epochs=3.0,
                  learning_rate=3e-4)
    inputs.add_data_option(made)
    made.add_argument("--intents", type=int, default=3000, help="training examples of CLINC150")
    made.add_argument("--tags", type=int, default=1500, help="training sentences of UD English EWT")
    made.add_argument("--temperature", type=float, default=1.0, help="of data.temperature")
    made.add_argument("--apart", action="store_true", help="every task by itself")
    return made.parse_args()


if __name__ == "__main__":
    main()
