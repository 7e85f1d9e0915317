"""Files are read as people mean them, or refused with the line where they are not what they say."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Json, List, Value

from stilla.data import sources
from stilla.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


def read(tmp_path: Path, name: str, content: str | bytes) -> Dataset:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return sources.read(str(tmp_path / name))["train"]


def rows(tmp_path: Path, name: str, content: str | bytes) -> list[dict[str, Any]]:
    return read(tmp_path, name, content).to_list()


# --- CSV and TSV ---


def test_every_field_is_the_text_that_stands_there(tmp_path: Path) -> None:
    found = read(tmp_path, "a.csv", 'text,label\n007,NA\n1e5,null\n2020-01-01,\n" x ",True\n')
    assert found.features == Features({"text": Value("string"), "label": Value("string")})
    assert found.to_dict() == {"text": ["007", "1e5", "2020-01-01", " x "], "label": ["NA", "null", None, "True"]}


TRIPLES = "what is it?\ta bird\ta plane\nwho?\t\"me\"\t\n"


@pytest.mark.parametrize("content", [TRIPLES, "\ufeff" + TRIPLES, "\n" + TRIPLES.replace("\n", "\r\n"),
                                     "query\tpositive\tnegative\n" + TRIPLES])
def test_files_without_a_header_keep_their_first_row(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.tsv").write_text(content, encoding="utf-8")
    found = sources.read(str(tmp_path / "a.tsv"), header=("query", "positive", "negative"))["train"]
    assert found.to_list() == [{"query": "what is it?", "positive": "a bird", "negative": "a plane"},
                               {"query": "who?", "positive": '"me"', "negative": None}]


def test_a_header_of_these_names_in_another_order_says_which_is_which(tmp_path: Path) -> None:
    for name, content in (("b.csv", "text,label\na,x\n"), ("c.csv", "label,text\nx,a\n"), ("d.csv", 'a,x\n"b\nc",x\n')):
        (tmp_path / name).write_text(content)
        found = sources.read(str(tmp_path / name), header=("text", "label"))["train"]
        assert (found[0]["text"], found[0]["label"]) == ("a", "x")
    assert found[1]["text"] == "b\nc"  # of several lines
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.csv").write_text(f"a{number},x\n")
    assert sources.read(str(folder), header=("text", "label"))["train"]["text"][:] == ["a0", "a1"]
    assert sources.read(str(folder / "0.csv"), header=("label", "text"))["train"]["text"][:] == ["x"]  # and is read anew


def test_rows_of_other_lengths_than_the_columns_that_were_named_are_refused_from_the_first_on(tmp_path: Path) -> None:
    for content, line in (("a,x,y\nb,x\n", 1), ("b,x\na,x,y\n", 2)):
        (tmp_path / "a.csv").write_text(content)
        with pytest.raises(DataError, match=rf"line {line} has 3 fields, the recipe's `header` has 2 \(text, label\)"):
            sources.read(str(tmp_path / "a.csv"), header=("text", "label"))


def test_a_first_line_that_is_an_example_is_doubted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "stilla"):
        read(tmp_path, "a.tsv", f"what is it?\t{'a bird ' * 20}\na\tb\n")
        assert "a.tsv: its first line is read as the names of its columns" in caplog.text
        assert "data.header: [...]" in caplog.text
        caplog.clear()
        read(tmp_path, "b.tsv", f"query\tpositive\nwhat is it?\t{'a bird ' * 20}\n")
    assert not caplog.text


@pytest.mark.parametrize("content", [
    'text,label\n"a, ""b""",x\n"",y\n', 'text,label\r\n"a, ""b""",x\r\n,y\r\n', '\ufefftext,label\n"a, ""b""",x\n,y',
    'text,label\r"a, ""b""",x\r,y\r', ' text ,label\n\n"a, ""b""",x\n   \n,y\n\n', "text,label,\n\"a, \"\"b\"\"\",x,\n,y,\n",
])
def test_the_same_rows_in_other_clothes(tmp_path: Path, content: str) -> None:
    found = [{key: row[key] for key in ("text", "label")} for row in rows(tmp_path, "a.csv", content)]
    assert found == [{"text": 'a, "b"', "label": "x"}, {"text": None, "label": "y"}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_a_mark_at_the_beginning_says_the_encoding(tmp_path: Path, encoding: str, name: str) -> None:
    content = {"a.csv": "text,label\nünï,x\n", "a.jsonl": '{"text": "ünï"}\n', "a.txt": "ünï\n"}[name]
    assert rows(tmp_path, name, content.encode(encoding))[0]["text"] == "ünï"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lambda raw: pa.compress(raw, "zstd", asbytes=True)])
@pytest.mark.parametrize("name", ["a.csv", "b.csv.gz", "c.csv.zst"])
def test_compressed_files_are_known_by_how_they_begin(tmp_path: Path, pack: Any, name: str) -> None:
    content = b"text,label\n" + b"a,x\n" * 5000
    if pack not in (gzip.compress, bz2.compress):
        with pa.CompressedOutputStream(str(tmp_path / "z"), "zstd") as stream:
            stream.write(content)
        packed = (tmp_path / "z").read_bytes()
    else:
        packed = pack(content)
    assert len(read(tmp_path, name, packed)) == 5000
    with pytest.raises(DataError):
        read(tmp_path, f"cut_{name}", packed[:-9])


@pytest.mark.parametrize(("content", "words"), [
    ("text,label\na,x\nnot bad, at all,x\n", r"line 3 has 3 fields, the header has 2 \(text, label\): 'not bad, at all,x'"),
    ("text,label\nnot bad, at all,x\n" * 2, "line 2 has 3 fields"),
    ("text,label\na,x\nb\n", "line 3 has 1 field, the header has 2.*Expected a field for every column"),
    ("text,label\na,x,\nb,y\n", "line 3 has 2 fields"),
    ("text,label\na,x\nb,y,\n", "line 3 has 3 fields"),
    ("text,label,label\na,x,y\n", "two columns are called 'label'"),
    ('text,label\na,x\n"b,y\nc,x\n', "a quotation mark in the row that begins in line 3 does not end"),
    ('text,label\na,x\n"good" film,y\n', "in the row that begins in line 3, a quoted text goes on behind"),
    ('text,label\na,x\n"he said \\"hi\\"",y\n', "in the row that begins in line 3"),
    ("text,label\na\0b,x\n", "holds characters of code 0"),
    (b"text,label\na,x\nb\xff,y\n", "line 3 is not UTF-8 text; save it as UTF-8 .byte 0xff"),
    ("text\tlabel\na\tx\n", "its columns are separated by"),
    ('text,label\na,pos\n"why not,pos\nb,neg\nc,pos\nit said ",neg\nd,neg\n',
     "the quotation mark in line 3 ends in line 6 only, and the lines between look like rows: '\"why not,pos'"),
])
def test_rows_that_do_not_fit_are_refused_by_their_line(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(tmp_path, "a.csv", content)


def test_texts_of_several_lines_are_read_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = rows(tmp_path, "a.csv", 'text,label\n"one\ntwo, three\n\nfour",x\n\nb,y\n')
    assert found == [{"text": "one\ntwo, three\n\nfour", "label": "x"}, {"text": "b", "label": "y"}]
    assert "a.csv: 7 lines became 2 rows: one is the header, 1 are empty, 3 go on with a quoted text" in caplog.text


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_texts_of_any_length_are_read(tmp_path: Path, name: str) -> None:
    long = 'he said "yes"\n' * 20_000
    separator = "," if name == "a.csv" else "\t"
    marked = long.replace('"', '""')
    content = f'text{separator}label\n"{marked}"{separator}x\nb{separator}y\n'
    assert rows(tmp_path, name, content) == [{"text": long, "label": "x"}, {"text": "b", "label": "y"}]


def test_a_comma_at_the_end_of_every_line_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert rows(tmp_path, "a.csv", "text,label\na,x,\nb,y,\n")[0] == {"text": "a", "label": "x"}
    assert "every row ends in 1 separator more than the header" in caplog.text
    caplog.clear()
    sources.read(str(tmp_path / "a.csv"))
    assert "every row ends in 1 separator" in caplog.text  # what was said of the reading is said of what it left


def test_a_tsv_has_no_quotation_marks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [f'film {i}\t{"pos" if i % 2 else "neg"}' for i in range(60)]
    lines[5], lines[9], lines[30], lines[40] = '"good film\tpos', 'it was "great"\tneg', '"why"\tpos', 'a "\tneg'
    found = rows(tmp_path, "a.tsv", "text\tlabel\n" + "\n".join(lines) + "\n")
    assert [f"{row['text']}\t{row['label']}" for row in found] == lines
    assert "read as they stand, marks and all, as TSV has no quoting" in caplog.text


@pytest.mark.parametrize("content", [
    'text\tlabel\n"a\t""b""\nc"\tx\nd\ty\n', '"text"\t"label"\n"a\t""b""\nc"\t"x"\n"d"\t"y"\n'])
def test_a_tsv_that_a_program_wrote_with_quotation_marks_is_read_with_them(tmp_path: Path, content: str) -> None:
    assert rows(tmp_path, "a.tsv", content) == [{"text": 'a\t"b"\nc', "label": "x"}, {"text": "d", "label": "y"}]


def test_the_quick_and_the_slow_way_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = 'text,label\n' + ''.join(f'"a ""{i}"", b",x\n,"y"\n"",""\n' for i in range(300))
    quick = rows(tmp_path, "a.csv", content)
    monkeypatch.setattr("stilla.data.delimited._quick", lambda *_: None)
    assert rows(tmp_path, "b.csv", content) == quick


@pytest.mark.parametrize("size", [1, 7, 40])
def test_the_size_of_blocks_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    content = 'text,label\n' + ''.join(f'"a, ""{i}""",x\nb,y\n' for i in range(50))
    whole = rows(tmp_path, "a.csv", content)
    monkeypatch.setattr("stilla.data.delimited._BYTES", size)
    assert rows(tmp_path, f"{size}.csv", content) == whole


def test_files_of_one_split_have_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.csv").write_text("text,label\na,x\n")
    (tmp_path / "d" / "b.csv").write_text("label,text\ny,b\n")
    assert sources.read(str(tmp_path / "d"))["train"].to_list() == [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    (tmp_path / "d" / "c.csv").write_text("label,txt\ny,b\n")
    with pytest.raises(DataError, match=r"c\.csv': has other columns than a\.csv \('text' and 'txt' in one of them only"):
        sources.read(str(tmp_path / "d"))


def test_a_file_that_changed_is_read_anew_whatever_its_times_say(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert rows(tmp_path, "a.csv", "text,label\na,x\n")[0]["label"] == "x"
    times = path.stat()
    path.write_text("text,label\na,y\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert sources.read(str(path))["train"]["label"][:] == ["y"]


def test_rows_are_mapped_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(tmp_path, "a.csv", "text,label\na,x\n")
    assert Path(found.cache_files[0]["filename"]).is_relative_to(tmp_path / ".cache")
    monkeypatch.setattr("stilla.data.delimited.tables", lambda *_: pytest.fail("read again"))
    assert sources.read(str(tmp_path / "a.csv"))["train"].to_list() == found.to_list()


# --- JSON ---


@pytest.mark.parametrize(("name", "content"), [
    ("a.jsonl", '{"text": "a", "n": 1}\n\n{"n": 2, "text": "b"}\n'),
    ("a.json", '[{"text": "a", "n": 1}, {"text": "b", "n": 2}]'),
    ("a.json", '{"text": ["a", "b"], "n": [1, 2]}'), ("a.json", '{"text": {"0": "a", "1": "b"}, "n": {"0": 1, "1": 2}}'),
    ("a.json", '{"text": "a", "n": 1}\n{"text": "b", "n": 2}\n'), ("a.json", '{\n "text": ["a", "b"],\n "n": [1, 2]}'),
])
def test_json_comes_in_several_forms(tmp_path: Path, name: str, content: str) -> None:
    assert rows(tmp_path, name, content) == [{"text": "a", "n": 1}, {"text": "b", "n": 2}]


def test_texts_in_json_stay_texts(tmp_path: Path) -> None:
    found = read(tmp_path, "a.jsonl", '{"text": "2020-01-01", "date": "1e5"}\n{"text": "2020-01-02", "date": "7"}\n')
    assert found.to_list() == [{"text": "2020-01-01", "date": "1e5"}, {"text": "2020-01-02", "date": "7"}]
    assert rows(tmp_path, "a.json", '["a", "b"]') == [{"text": "a"}, {"text": "b"}]


def test_values_keep_what_they_are_however_they_are_mixed(tmp_path: Path) -> None:
    some = [{"a": 1, "b": None, "m": [{"role": "x"}], "t": {"en": "a"}, "k": 1},
            {"a": 1.5, "b": True, "m": [{"role": "y", "weight": 1}, {}], "t": {"en": "b"}, "k": "1"}, {"a": None}]
    found = read(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in some))
    assert found.features == Features({
        "a": Value("float64"), "b": Value("bool"), "m": List(Json()), "t": {"en": Value("string")}, "k": Json()})
    assert found[1] == {**some[1], "a": 1.5}
    assert found[0]["m"] == [{"role": "x"}]
    assert found[2] == dict.fromkeys(some[0])


def test_what_is_null_in_every_object_of_a_list_is_kept_as_null(tmp_path: Path) -> None:
    some = [{"a": [{"s": 0, "n": None}] * 5, "b": [[None, None], [None]] * 3, "c": [{"j": 1, "n": [None] * 9}]},
            {"a": [], "b": None, "c": [{"j": "x", "n": None}, {"j": None, "n": [None]}]}, {"a": None, "b": [[]], "c": []}]
    assert rows(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in some)) == some


def test_a_type_that_changes_late_changes_the_whole_column(tmp_path: Path) -> None:
    some = [{"a": 1, "b": None}] * 2500 + [{"a": 0.5, "b": "x"}]
    found = read(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in some))
    assert found.features == Features({"a": Value("float64"), "b": Value("string")})
    assert found.to_list() == some


@pytest.mark.slow
@pytest.mark.parametrize(("content", "words"), [
    ('{"a": 1}\n{"a":\n', "line 2 is no JSON: Expecting value"),
    ('{"a": 1}\n[1]\n', "line 2 is a list; expected an object"),
    ('{"a": 1}\n{"a": 1, "a": 2}\n', "line 2: the key 'a' stands twice"),
    ('{"a": "\\ud800"}\n', "line 1: an escape stands for half a character"),
    ('{"a": 1}\n{"a": 9999999999999999999999}\n', "'a' holds a whole number that is too large"),
    ('{"a": 0.5}\n{"a": 9007199254740993}\n', "'a' holds a whole number that is too large"),
    ('{"a": ' + "[" * 80 + "]" * 80 + "}", "more than 50 deep"),
    ('{"a": ' + "[" * 100_000, "line 1"),
    ("".join(f'{{"k{i}": 1}}\n' for i in range(2100)), "line 2001: more than 2000 different keys"),
    ("{}\n{}\n", "there are no examples in it"),
    ('[{"a": 1}, 3]', "item 1 of the list is a number"),
    ('[{"a": 1},\n {"a": }]', "line 2 is no JSON"),
])
def test_json_that_is_none_is_refused_by_its_line(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read(tmp_path, "a.jsonl", content)
    assert len(str(caught.value)) < 2100


def test_an_object_around_the_rows_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is one object with the keys 'version', 'data'; expected rows"):
        read(tmp_path, "a.json", '{"version": 1, "data": [{"a": 1}, {"a": 2}]}')


# --- plain text ---


def test_a_line_of_spaces_parts_paragraphs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = rows(tmp_path, "a.txt", "one\n two\n \t\nthree\r\n\r\n\r\nfour")
    assert found == [{"text": "one\n two"}, {"text": "three"}, {"text": "four"}]
    assert "a.txt: 7 lines became 3 paragraphs" in caplog.text
    with pytest.raises(DataError, match="there are no examples"):
        read(tmp_path, "b.txt", " \n\n")


# --- Parquet and Arrow ---


@pytest.mark.parametrize(("kind", "values", "feature"), [
    (pa.string_view(), ["a", None], Value("string")), (pa.large_string(), ["a", None], Value("large_string")),
    (pa.dictionary(pa.int8(), pa.string()), ["a", None], Value("string")),
    (pa.list_view(pa.string_view()), [["a", "b"], None], List(Value("string"))),
    (pa.list_(pa.dictionary(pa.int8(), pa.string())), [["a"], None], List(Value("string"))),
    (pa.list_(pa.struct([("a", pa.string()), ("n", pa.null())])), [[{"a": "x", "n": None}] * 5, None],
     List({"a": Value("string"), "n": Value("string")})),
    (pa.decimal128(5, 2), [Decimal("1.50"), None], Value("decimal128(5, 2)")),
    (pa.map_(pa.string(), pa.int64()), [[("a", 1)], None], List({"key": Value("string"), "value": Value("int64")})),
    (pa.bool8(), [1, None], Value("bool")),
])
def test_newer_types_of_arrow_hold_the_same_values(tmp_path: Path, kind: Any, values: list[Any], feature: Any) -> None:
    array = pa.array(values, pa.int8()).cast(kind) if kind == pa.bool8() else pa.array(values, kind)
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), pa.schema([("x", kind)])) as writer:
        writer.write_table(pa.table({"x": array}))
    found = sources.read(str(tmp_path / "a.arrow"))["train"]
    expected = [[{"key": "a", "value": 1}], None] if isinstance(kind, pa.MapType) else values
    assert (found.features["x"], found["x"][:]) == (feature, expected)
    if not isinstance(kind, pa.ListViewType):
        pq.write_table(pa.table({"x": array}), tmp_path / "a.parquet")
        assert sources.read(str(tmp_path / "a.parquet"))["train"]["x"][:] == expected


def test_json_and_classes_of_datasets_come_back_from_parquet(tmp_path: Path) -> None:
    features = Features({"j": List(Json()), "c": ClassLabel(names=["x", "y"])})
    Dataset.from_dict({"j": [[{"a": 1}, {"b": 2}]], "c": [1]}, features=features).to_parquet(tmp_path / "a.parquet")
    found = sources.read(str(tmp_path / "a.parquet"))["train"]
    assert found.features == features
    assert found[0] == {"j": [{"a": 1}, {"b": 2}], "c": 1}


def test_two_columns_of_one_name_are_refused_in_parquet_too(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["label", "label"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="two columns are called 'label'"):
        sources.read(str(tmp_path / "a.parquet"))


def test_damaged_parquet_is_refused_where_its_checksums_tell(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(500)]}), tmp_path / "a.parquet",
                   compression="none", use_dictionary=False, write_page_checksum=True)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    place = content.index(b"text 250")
    content[place] ^= 1
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path, "b.parquet", bytes(content))


def test_text_in_parquet_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["abc", "def"]}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    content = (tmp_path / "a.parquet").read_bytes().replace(b"def", b"d\xff\xff")
    with pytest.raises(DataError, match="UTF8"):
        read(tmp_path, "b.parquet", content)
