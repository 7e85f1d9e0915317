"""What the cases learn from: each written once, as Parquet files, into its folder.

What is made of other data sets (pairs, numbers, few labels) is drawn by fixed rules, so that every machine has the same.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.inputs import (
    classic_books,
    clinc150,
    data_set,
    flowers,
    sentences_with_feelings,
    tatoeba,
    ud_english,
    xquad,
)

SPLITS = ("train", "validation", "test")
POOL = "unlabelled"
"""The folder, beside that of the splits, of examples that only the teacher answers for."""
SENTENCES = 20_000
"""Of everyday English, as the pool of a case that has none of its own."""
Rows = list[dict[str, Any]]


def read(folder: Path, split: str) -> Rows:
    rows: Rows = pq.read_table(folder / f"{split}.parquet").to_pylist()
    return rows


def rows_in(file: Path) -> int:
    return int(pq.read_metadata(file).num_rows) if file.is_file() else 0


def write(folder: Path, split: str, rows: Rows) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")


def _sentences(data: Path | None, folder: Path) -> None:
    """Other texts than the case's: everyday sentences, drawn by a fixed seed."""
    rows = read(tatoeba(data), "train")
    texts = sorted({row["en"] for row in rows})
    drawn = random.Random(0).sample(texts, k=min(SENTENCES, len(texts)))
    write(folder.parent / POOL, "texts", [{"text": text} for text in drawn])


def intents(data: Path | None, folder: Path, keep: Callable[[dict[str, Any]], bool] = lambda _: True) -> None:
    source = clinc150(data)
    names = _class_names(source, "intent")
    for split in SPLITS:
        rows = [{"text": row["text"], "intent": names[row["intent"]]} for row in read(source, split)]
        write(folder, split, [row for row in rows if keep(row)])
    _sentences(data, folder)


def known_intents(data: Path | None, folder: Path) -> None:
    intents(data, folder, lambda row: row["intent"] not in ("oos", "out_of_scope"))


def few_intents(data: Path | None, folder: Path) -> None:
    """Eight texts of every class with their label; the others without."""
    intents(data, folder)
    left: dict[str, int] = {}
    few: Rows = []
    others: Rows = []
    for row in random.Random(0).sample(read(folder, "train"), k=len(read(folder, "train"))):
        left[row["intent"]] = left.get(row["intent"], 0) + 1
        if left[row["intent"]] <= 8:
            few.append(row)
        else:
            others.append({"text": row["text"]})
    write(folder, "train", few)
    write(folder.parent / POOL, "texts", others)


def topics(data: Path | None, folder: Path) -> None:
    source = data_set(data, "sib200", "dadelani/sib-200: columns lang, text, label")
    names = _class_names(source, "label")
    for split in SPLITS:
        write(folder, split, [{"text": row["text"], "topic": names[row["label"]]} for row in read(source, split)
                              if row["lang"] == "eng_Latn"])
    _sentences(data, folder)


PAPERS = 600
"""Of each split: pairs are long."""


def _papers(data: Path | None) -> Path:
    return data_set(data, "scitldr", "allenai/scitldr: columns title, source, rouge_scores")


def titles(data: Path | None, folder: Path) -> None:
    """Does this sentence come from the abstract of the paper with this title? Two of its own, two of the next papers."""
    source = _papers(data)
    for split in SPLITS:
        papers, rows, draw = read(source, split)[:PAPERS], [], random.Random(0)
        for number, paper in enumerate(papers):
            other = papers[(number + 1 + draw.randrange(len(papers) - 1)) % len(papers)]
            for whose, answer in ((paper, "its own"), (other, "another's")):
                for sentence in draw.sample(whose["source"], k=min(2, len(whose["source"]))):
                    rows.append({"title": paper["title"], "sentence": sentence, "answer": answer})
        write(folder, split, rows)


def worth(data: Path | None, folder: Path) -> None:
    """How much of the paper's summary a sentence of its abstract says: ROUGE, a number from 0 to 1."""
    source = _papers(data)
    for split in SPLITS:
        write(folder, split, [
            {"title": paper["title"], "sentence": sentence, "worth": float(score)}
            for paper in read(source, split)[:PAPERS] if len(paper["source"]) == len(paper["rouge_scores"])  # a few lack one
            for sentence, score in zip(paper["source"], paper["rouge_scores"])])


FELT = 8_000
"""Sentences to learn from."""


def felt(data: Path | None, folder: Path) -> None:
    """How good or bad twenty people found a sentence, from -4 to 4."""
    _parts(_feelings(data), folder)


def praise(data: Path | None, folder: Path) -> None:
    """Is it praise or blame? Without those that are neither."""
    rows = [{**row, "says": "praise" if row["felt"] > 0 else "blame"} for row in _feelings(data) if abs(row["felt"]) >= 0.5]
    _parts(rows, folder)


def _feelings(data: Path | None) -> Rows:
    found: Rows = []
    for file in sorted(sentences_with_feelings(data).glob("*_GroundTruth.txt")):
        for line in file.read_text(encoding="utf-8").splitlines():
            _, felt, text = line.split("\t")
            found.append({"text": text.strip(), "felt": float(felt), "from": file.name.removesuffix("_GroundTruth.txt")})
    return [*{row["text"]: row for row in found}.values()]  # no sentence twice


def _parts(rows: Rows, folder: Path) -> None:
    drawn = random.Random(0).sample(rows, k=len(rows))
    for split, part in zip(SPLITS, (drawn[:FELT], drawn[FELT:FELT + 2_000], drawn[FELT + 2_000:FELT + 6_000]), strict=True):
        write(folder, split, part)


def authors(data: Path | None, folder: Path) -> None:
    """Which of eight novelists wrote these twelve words, with which a paragraph begins?"""
    rows = read(classic_books(data), "train")
    names = [name for name, _ in Counter(row["author"] for row in rows).most_common(8)]
    begun = [{"text": " ".join(row["text"].split()[:12]), "author": row["author"]} for row in rows
             if row["author"] in names and len(row["text"].split()) >= 8]
    drawn = random.Random(0).sample(begun, k=min(len(begun), 16_000))
    for split, part in zip(SPLITS, (drawn[:6_000], drawn[6_000:8_000], drawn[8_000:11_000]), strict=True):
        write(folder, split, part)
    write(folder.parent / POOL, "texts", [{"text": row["text"]} for row in drawn[11_000:]])


def years(data: Path | None, folder: Path) -> None:
    """In which year was the book published in which a paragraph begins with these 24 words?"""
    begun = [{"text": " ".join(row["text"].split()[:24]), "year": float(row["year"])}
             for row in read(classic_books(data), "train") if len(row["text"].split()) >= 24]
    _parts(begun, folder)


def docstrings(data: Path | None, folder: Path) -> None:
    from stilla.samples.docstrings import docstrings as texts_and_topics
    from stilla.samples.docstrings import docstrings_teacher

    texts_and_topics(folder)
    docstrings_teacher(folder.parent / "start", [row["text"] for row in read(folder, "train")])


def digits(data: Path | None, folder: Path) -> None:
    from stilla.samples.digits import digits as pictures
    from stilla.samples.digits import digits_teacher

    pictures(folder)
    digits_teacher(folder.parent / "start")


def flower_photos(data: Path | None, folder: Path) -> None:
    from stilla.samples.digits import digits_teacher

    source = flowers(data)
    digits_teacher(folder.parent / "start", size=64, patch=8)
    for split in SPLITS:
        pq.write_table(pq.read_table(source / f"{split}.parquet", columns=["image", "label"]), folder / f"{split}.parquet")


def resnet_flowers(data: Path | None, folder: Path) -> None:
    """The same photos, small, for convolutions of random weights."""
    from benchmarks.mixing import start, stored

    start("resnet", folder.parent / "start")
    stored(flowers(data), folder)


PARAGRAPHS, PAIRS = 5_000, 20_000
"""Of novels, and of everyday sentences and their translations."""


def novels(data: Path | None, folder: Path) -> None:
    """Paragraphs of novels; those that are measured are of novels that nobody learns from."""
    from stilla.samples.library import functions_teacher

    source = classic_books(data)
    for split, count in (("train", PARAGRAPHS), ("validation", 200), ("test", 400)):
        texts = [{"text": row["text"]} for row in read(source, split)]
        write(folder, split, random.Random(0).sample(texts, k=min(count, len(texts))))
    functions_teacher(folder.parent / "start", [row["text"] for row in read(folder, "train")], vocabulary=4096, layers=4)


def translations(data: Path | None, folder: Path) -> None:
    """Sentences of at most six words, and what they are in German."""
    from benchmarks.tatoeba import untrained

    source = tatoeba(data)
    for split, count in (("train", PAIRS), ("validation", 500), ("test", 1_000)):
        short = [row for row in read(source, split) if len(row["en"].split()) <= 6]
        write(folder, split, random.Random(0).sample(short, k=min(count, len(short))))
    untrained([text for row in read(folder, "train") for text in row.values()], folder.parent / "start", vocabulary=2048)


def masked(data: Path | None, folder: Path) -> None:
    """Everyday sentences, some of whose words are masked."""
    import torch
    from transformers import AutoModelForMaskedLM, BertConfig

    from stilla.samples.docstrings import docstrings_teacher

    source, start = tatoeba(data), folder.parent / "start"
    for split, count in (("train", PAIRS), ("validation", 1_000), ("test", 2_000)):
        texts = sorted({row["en"] for row in read(source, split)})
        write(folder, split, [{"text": text} for text in random.Random(0).sample(texts, k=min(count, len(texts)))])
    docstrings_teacher(start, [row["text"] for row in read(folder, "train")], vocabulary=2048, layers=4)
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(BertConfig.from_pretrained(start)).save_pretrained(start)


def words(data: Path | None, folder: Path) -> None:
    """Sentences as words, with a part of speech for every word."""
    source = ud_english(data)
    for split in SPLITS:
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pq.read_table(source / f"{split}.parquet", columns=["tokens", "upos"]), folder / f"{split}.parquet")


def questions(data: Path | None, folder: Path) -> None:
    """Questions on English paragraphs, each with its answer in them."""
    source = xquad(data)
    for split in SPLITS:
        folder.mkdir(parents=True, exist_ok=True)
        columns = ["context", "question", "answers"]
        pq.write_table(pq.read_table(source / f"en-{split}.parquet", columns=columns), folder / f"{split}.parquet")


def _class_names(source: Path, column: str) -> list[str]:
    """The names that the Parquet files' own metadata have for the numbers."""
    from datasets import ClassLabel, Dataset

    feature = Dataset.from_parquet(str(source / "train.parquet"), keep_in_memory=True).features[column]
    assert isinstance(feature, ClassLabel)
    names: list[str] = list(feature.names)
    return names
