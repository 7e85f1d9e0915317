"""Folders for search, as BEIR has them: `corpus.jsonl`, `queries.jsonl` (or `.parquet`), and in `qrels/` what answers which
query.

A split is a file of `qrels/`: its queries and all documents, a text a row, as `id`, `role` (query or document), `text` and
`relevant` (of a query: ids of documents with their grade). A file in `runs/` of the same name says what a first search has
found: then there are `candidates` too (of a query: ids of documents, the best first).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from stilla.data import json_rows
from stilla.data.columnar import parquet_tables
from stilla.data.opened import read_text
from stilla.errors import DataError, all_at_once, counted, one_of, quoted

CORPUS, QUERIES, JUDGEMENTS, RUNS = "corpus", "queries", "qrels", "runs"
_READ = {".jsonl": json_rows.tables, ".parquet": parquet_tables}
"""How texts are read, by ending."""
CANDIDATES = "candidates"
COLUMNS = ("id", "role", "text", "relevant")
_SCHEMA = pa.schema([("id", pa.string()), ("role", pa.string()), ("text", pa.string()),
                     ("relevant", pa.list_(pa.struct([("id", pa.string()), ("grade", pa.int64())])))])
_RUN_ENDINGS = (".trec", ".run", ".tsv", ".txt")
_NAMES = {"dev": "validation", "valid": "validation", "val": "validation"}
_LISTED = 5

Grades = dict[str, dict[str, int]]
"""By query, by document."""
Found = dict[str, list[str]]
"""By query its documents, the best first."""


def is_one(folder: Path) -> bool:
    return bool(_files(folder, CORPUS) and _files(folder, QUERIES))


def _files(folder: Path, name: str) -> list[Path]:
    return [path for ending in _READ if (path := folder / f"{name}{ending}").is_file()]


def read(folder: Path) -> dict[str, Dataset]:
    """Every split; all documents are in each.

    Raises:
        DataError: no judgements, an id twice, a text that is none, judgements of what is not there; all at once.
    """
    files = sorted((folder / JUDGEMENTS).glob("*.tsv"))
    if not files:
        raise DataError(f"{str(folder)!r}: nothing says what answers a query; expected files in {JUDGEMENTS}/, for example "
                        f"{JUDGEMENTS}/test.tsv, with the columns query-id, corpus-id and score")
    problems: list[str] = []
    corpus, asked = (_files(folder, name) for name in (CORPUS, QUERIES))
    problems += [f"{str(folder)!r}: {some[0].name} and {some[1].name} stand there both; leave one of them"
                 for some in (corpus, asked) if len(some) > 1]
    documents, queries = (_texts(some[0], problems) for some in (corpus, asked))
    judged = {path: _grades(path, problems) for path in files}
    runs = _runs(folder, [path.stem for path in files], problems)
    for path, grades in judged.items():
        problems += _unknown(path, "query", grades, queries, asked[0].name)
        named = {document for found in grades.values() for document in found}
        problems += _unknown(path, "document", named, documents, corpus[0].name)
    for path, run in runs.items():
        problems += _unknown(path, "query", run, queries, asked[0].name)
        problems += _unknown(path, "document", {one for found in run.values() for one in found}, documents, corpus[0].name)
    if problems:
        raise all_at_once(problems, DataError)
    found = {path.stem: run for path, run in runs.items()}
    return {_NAMES.get(path.stem, path.stem): _split(documents, queries, grades, found.get(path.stem))
            for path, grades in judged.items()}


def _split(documents: Mapping[str, str], queries: Mapping[str, str], grades: Grades, run: Found | None) -> Dataset:
    asked = [name for name in queries if name in grades]
    rows = [*((name, "query", queries[name], [{"id": one, "grade": grade} for one, grade in grades[name].items()])
              for name in asked), *((name, "document", text, []) for name, text in documents.items())]
    columns = zip(*rows)
    table = pa.table([pa.array(column, field.type) for column, field in zip(columns, _SCHEMA)], schema=_SCHEMA)
    if run is not None:
        listed = [*(run.get(name, []) for name in asked), *([] for _ in documents)]
        table = table.append_column(CANDIDATES, pa.array(listed, pa.list_(pa.string())))
    return Dataset(table)


def _runs(folder: Path, splits: list[str], problems: list[str]) -> dict[Path, Found]:
    """What a first search found, by file; a file whose name is no split's would be left out without a sign."""
    files = [path for path in sorted((folder / RUNS).glob("*")) if path.is_file()]
    for path in files:
        if path.stem not in splits or path.suffix not in _RUN_ENDINGS:
            problems.append(f"{str(path)!r}: expected the name of a file in {JUDGEMENTS}/ ({one_of(splits)}) with an ending "
                            f"of {one_of(_RUN_ENDINGS)}")
    twice = sorted({path.stem for path in files if [one.stem for one in files].count(path.stem) > 1})
    problems += [f"{str(folder / RUNS)!r}: several files are called {name!r}" for name in twice]
    return {path: _run(path, problems) for path in files}


def _run(path: Path, problems: list[str]) -> Found:
    """Of TREC's six columns (query, Q0, document, rank, score, name of the run), or of a query and a document, and maybe a
    score. By falling score where there is one, else as they stand."""
    found: dict[str, dict[str, float]] = {}
    with read_text(path, newline=None) as file:
        read = [line.rstrip("\n") for line in file]
    for number, line in enumerate(read, 1):
        cells = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or (number == 1 and cells[0].lower().replace("_", "-") in ("query-id", "qid", "query")):
            continue
        place = {6: (0, 2, 4), 3: (0, 1, 2), 2: (0, 1, None)}.get(len(cells))
        score = None if place is None else -float(number) if place[2] is None else _number(cells[place[2]])
        if place is None or score is None:
            problems.append(f"{str(path)!r}, line {number}: got {quoted(line[:80])}; expected TREC's six columns, or a "
                            "query's id, a document's id, and maybe a score")
            return {}
        found.setdefault(cells[place[0]], {}).setdefault(cells[place[1]], score)
    return {query: sorted(scores, key=lambda one: -scores[one]) for query, scores in found.items()}


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _texts(path: Path, problems: list[str]) -> dict[str, str]:
    """By id: the title, where there is one, and the text."""
    found: dict[str, str] = {}
    twice: list[str] = []
    try:
        for table in _READ[path.suffix](path):
            if lacking := [name for name in ("_id", "text") if name not in table.column_names]:
                problems.append(f"{str(path)!r}: there is no {lacking[0]!r}; the columns are {one_of(table.column_names)}")
                return found
            for row in table.select([name for name in ("_id", "title", "text") if name in table.column_names]).to_pylist():
                name = str(row["_id"])
                twice += [name] if name in found else []
                found[name] = " ".join(part for part in (_said(row.get("title")), _said(row["text"])) if part)
    except (OSError, pa.ArrowException) as error:
        problems.append(f"{str(path)!r}: cannot be read: {str(error).splitlines()[0]}")
    if twice:
        problems.append(f"{str(path)!r}: {len(twice):,} ids stand there more than once: {_some(twice)}")
    return found


def _said(value: Any) -> str:
    return str(value).strip() if value is not None else ""


def _grades(path: Path, problems: list[str]) -> Grades:
    """Of `query-id corpus-id score` with a header, or of TREC's four columns without one."""
    found: Grades = {}
    with read_text(path, newline=None) as file:
        read = [line.rstrip("\n") for line in file]
    for number, line in enumerate(read, 1):
        cells = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or (number == 1 and cells[-1:] and not _is_grade(cells[-1])):
            continue
        if len(cells) not in (3, 4) or not _is_grade(cells[-1]):
            problems.append(f"{str(path)!r}, line {number}: got {quoted(line[:80])}; expected a query's id, a document's "
                            "id and a whole number, by tabs")
            return found
        query, document = cells[0], cells[-2]
        found.setdefault(query, {})[document] = int(cells[-1])
    return found


def _is_grade(cell: str) -> bool:
    return cell.strip().lstrip("+-").isdigit()


def _unknown(path: Path, what: str, named: Any, there: Mapping[str, str], file: str) -> list[str]:
    lost = [name for name in named if name not in there]
    if not lost or not there:
        return []
    return [f"{str(path)!r}: {counted(len(lost), what, 'is')} not in {file}: {_some(lost)}"]


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:_LISTED])}{' ...' if len(names) > _LISTED else ''}"
