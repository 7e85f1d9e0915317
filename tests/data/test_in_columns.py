"""Words in columns: CoNLL's files and CoNLL-U as rows of lists."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from stilla.data import sources
from stilla.errors import DataError

CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

# id 7 domain=news
Peter NNP B-NP B-PER
# NN B-NP O
"""
UNIVERSAL = """# newdoc id = x
# text = Don't go
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVB\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_
2.1\tyou\tyou\tPRON\tPRP\t_\t_\t_\t_\t_
3\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\tSpaceAfter=No

1\tNew York\tNew York\tPROPN\tNNP\t_\t0\troot\t_\t_
"""


def read(path: Path, text: str, **options: Any) -> dict[str, list[Any]]:
    path.write_text(text, encoding="utf-8")
    found: dict[str, list[Any]] = sources.read(str(path), **options)["train"].to_dict()
    return found


@pytest.mark.parametrize("name", ["train.conll", "train.iob2", "train.bio"])
def test_the_first_column_are_the_words_and_the_last_the_tags(tmp_path: Path, name: str) -> None:
    found = read(tmp_path / name, CONLL)
    assert found["tokens"] == [["EU", "rejects"], ["Peter", "#"]]
    assert found["tags"] == [["B-ORG", "O"], ["B-PER", "O"]]
    assert found["column_2"] == [["NNP", "VBZ"], ["NNP", "NN"]]
    assert list(found) == ["tokens", "column_2", "column_3", "tags"]


def test_plain_text_is_read_so_where_a_task_says_it(tmp_path: Path) -> None:
    assert read(tmp_path / "train.txt", "a\tX\nb\tO\n\nc d\tO\n", document="columns")["tokens"] == [["a", "b"], ["c d"]]
    assert read(tmp_path / "plain.txt", "a\tX\nb\tO\n", document="line") == {"text": ["a\tX", "b\tO"]}


def test_splits_are_found_by_their_names(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        (tmp_path / f"en_ewt-ud-{split}.conllu").write_text(UNIVERSAL, encoding="utf-8")
    assert set(sources.read(str(tmp_path))) == {"train", "validation", "test"}


def test_conll_u_has_its_columns_by_name_without_parts_and_empty_nodes(tmp_path: Path) -> None:
    found = read(tmp_path / "x.conllu", UNIVERSAL)
    assert found["tokens"] == [["Do", "n't", "go"], ["New York"]]
    assert found["upos"] == [["AUX", "PART", "VERB"], ["PROPN"]]
    assert found["misc"] == [["_", "_", "SpaceAfter=No"], ["_"]]
    (tmp_path / "y.conllu.gz").write_bytes(gzip.compress(UNIVERSAL.encode()))
    assert sources.read(str(tmp_path / "y.conllu.gz"))["train"].to_dict() == found


@pytest.mark.parametrize(("name", "text", "why"), [
    ("x.conll", "EU B-ORG\nrejects\n", r"line 2 has 1 column, the lines before have 2: 'rejects'"),
    ("x.conll", "EU\nrejects\n", r"line 1 has a single column, 'EU'; expected a word a line"),
    ("x.conll", "EU\tB-ORG\nrejects O\n", r"line 2 has 1 column.*parted by tabs"),
    ("x.conllu", "1\tDo\tdo\tAUX\n", "line 1 has 4 columns, the lines before have 10"),
    ("x.conllu", "x\t" + "\t".join("_" * 9) + "\n", "line 1 begins with 'x'; expected the number of a word"),
    ("x.conll", "-DOCSTART- O\n\n", "there are no examples in it"),
])
def test_what_cannot_be_meant_is_refused_with_its_line(tmp_path: Path, name: str, text: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read(tmp_path / name, text)
