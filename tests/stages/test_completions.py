"""Texts that the teacher writes for the student: what they are, what is left out, and what a kill leaves."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from torch.nn import functional

from stilla.errors import DataError, StillaError
from stilla.evaluate.generate import Decoding, generate, writer
from stilla.recipe import Completions
from stilla.recipe.file import from_options
from stilla.stages import completions
from stilla.stages.parts import Parts, is_written
from stilla.tasks.base import Loaded
from stilla.tasks.language.sections import Seq2SeqData
from stilla.tasks.language.seq2seq import Seq2Seq
from stilla.tasks.language.translations import CUT
from tests.tasks import pairs

SPLIT = Dataset.from_dict(pairs.pairs(40))
SECTION = Completions(by="teacher", max_new_tokens=5, batch_size=2)
STAMP = {"teacher": "a"}


def teacher_of(family: str = "bart") -> tuple[Seq2Seq, Loaded]:
    model = pairs.trained(family)
    teacher = Loaded(model, pairs.processor(family, model), "teacher")
    return Seq2Seq.understand(Seq2SeqData(train="x"), {"train": SPLIT}).adapted_to(teacher), teacher


def written(folder: Path, section: Completions = SECTION, **changes: Any) -> completions.Completed:
    task, teacher = teacher_of()
    completions.write(section, task, teacher, SPLIT, folder, STAMP)
    return completions.read(section.model_copy(update=changes), task, SPLIT, folder)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


@pytest.mark.slow
def test_the_student_learns_what_the_teacher_writes(tmp_path: Path) -> None:
    task, teacher = teacher_of()
    asked = task.asked(SPLIT, teacher.processor)
    expected = generate(teacher.model, task, asked, teacher.processor, Decoding(5)).answers.given
    done = written(tmp_path)
    kept = [text for text in expected if text]
    assert done.data["target"][:] == kept
    assert done.share == len(kept) / len(SPLIT)
    sources = [source for source, text in zip(SPLIT["source"], expected) if text]
    assert done.data["source"][:] == sources


@pytest.mark.slow
def test_the_confidence_is_the_mean_log_probability_of_the_written_tokens() -> None:
    task, teacher = teacher_of()
    asked = task.asked(SPLIT, teacher.processor)
    inputs = asked.tokens.batch([0, 1, 2])
    texts = writer(teacher.model)(inputs, asked.options, Decoding(5))
    found = completions.confidences(teacher.model, task, teacher.processor, inputs, texts)
    for row, (text, confidence) in enumerate(zip(texts, found)):
        source = {name: value[row : row + 1] for name, value in inputs.items()}
        decoder = torch.tensor([[teacher.processor.start, *text.ids[:-1]]])
        logits = teacher.model(**source, decoder_input_ids=decoder).logits[0]
        assert confidence == pytest.approx(-float(functional.cross_entropy(logits, torch.tensor(text.ids))), abs=1e-5)


@pytest.mark.slow
def test_a_text_that_was_cut_is_not_taught_as_ended(tmp_path: Path) -> None:
    task, teacher = teacher_of()
    done = written(tmp_path)
    rows = [row for row in sorted(rows_of(tmp_path), key=lambda row: row["key"]) if row["text"]]
    assert any(row["cut"] for row in rows)
    assert done.data[CUT][:] == [row["cut"] for row in rows]
    prepared = task.prepare(done.data, teacher.processor, None, training=True)
    for index, row in enumerate(rows):
        labels = prepared.collate([index]).labels
        assert labels is not None
        assert (int(labels[0, -1]) == 2) == (not row["cut"])


@pytest.mark.slow
def test_a_killed_writing_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "whole")
    real, calls = Parts.save, []

    def killed(self: Parts, rows: Any, number: int, mark: str) -> None:
        calls.append(number)
        if len(calls) == 2:
            file = self.file(number)
            file.with_name(f".{file.name}.partial").write_bytes(b"half")
            raise KeyboardInterrupt
        real(self, rows, number, mark)

    task, teacher = teacher_of()
    monkeypatch.setattr(Parts, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        completions.write(SECTION, task, teacher, SPLIT, tmp_path / "killed", STAMP)
    with pytest.raises(StillaError, match=r"part-00001\.parquet is missing; run again"):
        completions.read(SECTION, task, SPLIT, tmp_path / "killed")
    first = (tmp_path / "killed" / "part-00000.parquet").stat().st_mtime_ns
    monkeypatch.setattr(Parts, "save", real)
    completions.write(SECTION, task, teacher, SPLIT, tmp_path / "killed", STAMP)
    assert (tmp_path / "killed" / "part-00000.parquet").stat().st_mtime_ns == first
    names = sorted(file.name for file in (tmp_path / "whole").iterdir())
    assert names == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet", "settings.json"]
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


@pytest.mark.slow
def test_texts_of_another_teacher_or_a_broken_file_are_written_again(tmp_path: Path) -> None:
    task, teacher = teacher_of()
    completions.write(SECTION, task, teacher, SPLIT, tmp_path, {"teacher": "another"})
    before = (tmp_path / "part-00001.parquet").read_bytes()
    (tmp_path / "part-00000.parquet").write_bytes(b"broken")
    completions.write(SECTION, task, teacher, SPLIT, tmp_path, STAMP)
    assert (tmp_path / "part-00001.parquet").read_bytes() != before  # its stamp is another
    assert len(rows_of(tmp_path)) == len(SPLIT)


def test_what_the_settings_say_is_what_texts_depend_on() -> None:
    task, teacher = teacher_of()
    plain = completions.settings(SECTION, task, teacher)
    assert plain["decoding"]["max_new_tokens"] == 5
    assert completions.settings(SECTION.model_copy(update={"num_beams": 3}), task, teacher) != plain
    assert completions.settings(SECTION.model_copy(update={"min_tokens": 3}), task, teacher) == plain
    assert completions.settings(SECTION, task, Loaded(pairs.model("bart", seed=6), teacher.processor, "x")) != plain


def only_short_sources(source: str, text: str) -> bool:
    return len(source.split()) == 1


@pytest.mark.slow
def test_filters_leave_out_by_length_confidence_cut_and_a_function(tmp_path: Path) -> None:
    written(tmp_path)
    rows = {row["key"]: row for row in rows_of(tmp_path) if row["text"]}
    task, _ = teacher_of()

    def kept(**changes: Any) -> list[str]:
        return list(completions.read(SECTION.model_copy(update=changes), task, SPLIT, tmp_path).data["source"])

    def sources(keep: Any) -> list[str]:
        return [SPLIT["source"][key] for key in sorted(rows) if keep(rows[key])]

    middle = sorted(row["log_probability"] for row in rows.values())[len(rows) // 2]
    assert kept(min_log_probability=middle) == sources(lambda row: row["log_probability"] >= middle)
    assert kept(min_tokens=5) == sources(lambda row: row["tokens"] >= 5)
    assert 0 < len(kept(cut="drop")) < len(rows)
    assert kept(cut="drop") == sources(lambda row: not row["cut"])
    assert kept(keep=f"{__name__}:only_short_sources") == sources(lambda row: " " not in SPLIT["source"][row["key"]])
    with pytest.raises(DataError, match=r"completions: none of the 40 texts is kept \(.*unlikely"):
        kept(min_log_probability=-0.0)


@pytest.mark.parametrize(("keep", "said"), [
    ("nowhere_at_all:keep", "the module 'nowhere_at_all' cannot be imported"),
    (f"{__name__}:SPLIT", "is Dataset; expected a function"),
])
def test_a_filter_that_does_not_exist_is_known_before_anything_is_written(keep: str, said: str) -> None:
    recipe = from_options({"task": "seq2seq", "data": "x", "teacher": "./t", "student": 1,
                           "completions": {"by": "teacher", "keep": keep}})
    problems = completions.problems(recipe, teacher_of()[0])
    assert [said in problem and problem.startswith("completions.keep: ") for problem in problems] == [True]


@pytest.mark.slow
def test_a_part_in_which_a_bit_has_flipped_is_written_again(tmp_path: Path) -> None:
    part = tmp_path / "part-00000.parquet"
    rows = [{"key": key, "text": f"words {key}", "tokens": key, "log_probability": -0.1 * key, "cut": False}
            for key in range(20)]
    Parts(tmp_path, completions.SCHEMA).save(rows, 0, "mark")
    content, draw = part.read_bytes(), random.Random(0)
    assert is_written(part, "mark")
    assert not is_written(part, "another mark")
    for place in draw.sample(range(len(content)), 300):
        part.write_bytes(bytes([*content[:place], content[place] ^ 1 << draw.randrange(8), *content[place + 1:]]))
        if is_written(part, "mark"):
            assert pq.read_table(part).to_pylist() == rows
