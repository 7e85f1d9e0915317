"""A small language model learns from novels, and one layer of it is taught in several ways.

    python -m benchmarks.books --data CLASSIC_BOOKS

Tokenizer (byte-level BPE) and teacher (a Llama of 4 layers) are trained here, on paragraphs of 40 novels. Its first
layer, with embeddings and head, learns the same paragraphs from labels alone, from the live teacher, and from what is
kept of the answers: the top 50 or 200, or 50 draws. Measured on novels that nobody was trained on, and on Wikipedia
(WikiText-2), where its test lines lie beside the data. `--continuations` adds another task: to go on with a paragraph,
as the data do or as the teacher does. The same command again continues.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets import Dataset, load_dataset

from benchmarks.inputs import add_data_option, classic_books, wikitext
from benchmarks.methods import LABELS, LOGITS, Way, costs, differences, elsewhere, qualities, show, sizes, taught
from benchmarks.students import parser
from stilla.runtime.quiet import quiet_libraries
from stilla.samples.library import functions_teacher
from stilla.stages.folder import RunFolder

WAYS: dict[str, Way] = {
    "live": {"objectives": [LABELS, LOGITS], "cache": "none"},
    "top 50": {"objectives": [LABELS, LOGITS], "cache": {"form": "top_k", "k": 50}},
    "top 200": {"objectives": [LABELS, LOGITS], "cache": {"form": "top_k", "k": 200}},
    "50 samples": {"objectives": [LABELS, LOGITS], "cache": {"form": "samples", "samples": 50}},
}


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/books", teacher_epochs=3.0, teacher_learning_rate=2e-3, epochs=1.0,
                  learning_rate=1e-3, limit=5000)
    made.add_argument("--batch-size", type=int, default=4, help="packed rows of 256 tokens")
    made.add_argument("--share", type=float, default=0.2, help="of the test paragraphs that are measured")
    add_data_option(made)
    made.add_argument("--ways", nargs="+", choices=list(WAYS), default=["live", "top 50", "50 samples"])
    made.add_argument("--continuations", action="store_true", help="teach the same student to go on with paragraphs")
    options = made.parse_args()
    quiet_libraries()
    folder, start = options.output / "data", options.output / "start"
    if not (folder / "train.parquet").is_file():
        write(options, folder)
    if not (start / "config.json").is_file():
        whole = _read(classic_books(options.data) / "train.parquet")["text"]
        functions_teacher(start, whole, vocabulary=4096, layers=4, width=128)
    data = {"train": str(folder), "text": "text", "max_length": 256}
    base = {"task": "causal-lm", "data": data, "student": {"layers": 1}}
    runs = taught(options, base, start, {name: WAYS[name] for name in options.ways})
    scores = {name: run.scores for name, run in runs.items()}
    show("books", qualities(scores, bytes_=_bytes(folder / "test.parquet")), differences(scores), costs(runs),
         sizes(next(iter(scores.values()))))
    other = options.output / "elsewhere" / "wikitext2.parquet"
    if other.is_file():
        shifted = elsewhere(runs, other)
        show("WikiText-2", qualities(shifted, bytes_=_bytes(other)), differences(shifted))
    if options.continuations:
        go_on(options, folder, RunFolder(next(iter(runs.values())).folder).teacher)


def go_on(options: argparse.Namespace, data: Path, teacher: Path) -> None:
    """The same student learns to go on with paragraphs: as they do in the data, or as the teacher does."""
    options.output, options.export = options.output / "continuations", []
    folder = options.output / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        if not (folder / f"{split}.parquet").is_file():
            texts = [text for text in _read(data / f"{split}.parquet")["text"] if 16 <= len(text.split()) <= 80]
            Dataset.from_list([_halved(text) for text in texts]).to_parquet(folder / f"{split}.parquet")
    section = {"train": str(folder), "prompt": "prompt", "completion": "completion", "max_length": 256}
    base = {"task": "causal-lm", "data": section, "student": {"layers": 1}}
    ways = {"live": WAYS["live"],
            "teacher's texts": {"objectives": [{"kind": "labels"}],
                                "completions": {"by": "teacher", "max_new_tokens": 60}}}
    options.batch_size *= 4  # rows of one paragraph's tokens, not packed ones
    runs = taught(options, base, teacher, ways, trained=True)
    scores = {name: run.scores for name, run in runs.items()}
    show("continuations", qualities(scores), differences(scores), costs(runs))


def _halved(text: str) -> dict[str, str]:
    """A paragraph's first words and the others; the space between them belongs to the others."""
    words = text.split()
    half = len(words) // 2
    return {"prompt": " ".join(words[:half]), "completion": " " + " ".join(words[half:])}


def write(options: argparse.Namespace, folder: Path) -> None:
    """Paragraphs to train on, drawn from all novels; every so manieth of those to measure on."""
    source = classic_books(options.data)
    folder.mkdir(parents=True, exist_ok=True)
    (options.output / "elsewhere").mkdir(exist_ok=True)
    every = round(1 / options.share)
    lines = wikitext(options.data)
    if lines is not None:
        whole = _read(lines)
        whole = whole.select([row for row, text in enumerate(whole["text"]) if len(text.strip()) > 1])
        whole.select(range(0, len(whole), 2 * every)).to_parquet(options.output / "elsewhere" / "wikitext2.parquet")
    for split, step in (("test", every), ("validation", 4 * every)):
        whole = _read(source / f"{split}.parquet")
        whole.select(range(0, len(whole), step)).to_parquet(folder / f"{split}.parquet")
    whole = _read(source / "train.parquet").shuffle(seed=0)
    whole.select(range(min(options.limit, len(whole)))).to_parquet(folder / "train.parquet")


def _read(file: Path) -> Dataset:
    return load_dataset("parquet", data_files=str(file), split="train").select_columns("text")


def _bytes(file: Path) -> int:
    """Of the texts in UTF-8, and one more for the end of each: it is predicted too."""
    return sum(len(text.encode()) + 1 for text in _read(file)["text"])


if __name__ == "__main__":
    main()
