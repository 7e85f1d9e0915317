"""The command for a machine with a GPU works where there is none, and what it says can be believed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.gpu import engine
from benchmarks.gpu.found import FAILED, HELD, LEFT_OUT, Finding, LeftOutError, Notebook, page
from benchmarks.gpu.setting import Setting, chosen
from benchmarks.gpu.speed import agreement, compare
from benchmarks.losses import Size


def notebook(folder: Path) -> Notebook:
    return Notebook("part", folder / "lines.jsonl")


def found(folder: Path) -> list[Finding]:
    return Finding.read(folder / "lines.jsonl")


# --- what is written down ---


def test_what_fails_is_written_down_and_the_next_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> str:
        raise AssertionError("2 is | not 3")

    def cannot() -> str:
        raise LeftOutError("needs a GPU")

    for name, question in (("a", fails), ("b", cannot), ("c", lambda: "equal")):
        notebook(tmp_path).check(name, question)
    assert [(one.name, one.state) for one in found(tmp_path)] == [("a", FAILED), ("b", LEFT_OUT), ("c", HELD)]
    capsys.readouterr()
    said = page({"GPU": "none"}, found(tmp_path))
    assert "1 held, 1 FAILED, 1 left out" in said
    assert "2 is / not 3" in said


def test_a_line_that_was_not_written_to_its_end_is_not_read(tmp_path: Path) -> None:
    notebook(tmp_path).check("a", lambda: "")
    with (tmp_path / "lines.jsonl").open("a") as file:
        file.write('{"part": "par')
    assert [one.name for one in found(tmp_path)] == ["a"]


@pytest.mark.slow
def test_a_wrong_engine_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = engine.fused_divergence
    monkeypatch.setattr(engine, "fused_divergence", lambda *given, **how: 1.001 * wrong(*given, **how))
    monkeypatch.setattr(Setting, "need_compiler", lambda self: (_ for _ in ()).throw(LeftOutError("takes long")))
    engine.ask(chosen("cpu", small=True, folder=tmp_path), notebook(tmp_path))
    states = {one.name: one.state for one in found(tmp_path)}
    assert states["forward_kl in float32 is the textbook's"] == FAILED
    assert states["labels in float32 is the textbook's"] == HELD


def test_contenders_that_differ_are_found(tmp_path: Path) -> None:
    same = {"ours": {"loss": 1.0, "gradient": 2.0}, "trl": {"loss": 1.0, "gradient": 2.1}}
    with pytest.raises(AssertionError, match="gradient"):
        agreement(same, 0.01)
    assert "ours, trl" in agreement(same, 0.1)
    compare(chosen("cpu", small=True, folder=tmp_path), notebook(tmp_path), Size(8, 50, 4, 6), "float32", 1)
    assert [one.name for one in found(tmp_path) if one.state == HELD] == ["all agree: float32, 8 rows, 50 classes"]
    assert all("times the bound" in one.numbers for one in found(tmp_path) if one.name in ("ours", "all logits"))


def test_the_device_is_chosen(tmp_path: Path) -> None:
    assert chosen("auto", small=True, folder=tmp_path).on_gpu == torch.accelerator.is_available()


# --- all of it ---

COMMAND = (sys.executable, "-m", "benchmarks.gpu", "--small", "--device", "cpu", "--out")


@pytest.mark.slow
def test_all_of_it_holds_on_a_processor(tmp_path: Path) -> None:
    command = [*COMMAND, str(tmp_path), "--minutes", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1300, check=False)
    findings = [Finding(**one) for one in json.loads((tmp_path / "results.json").read_text())["findings"]]
    assert [one.said for one in findings if one.state == FAILED] == []
    assert done.returncode == 0, done.stderr[-2000:]
    assert {one.part for one in findings if one.state == HELD} == {"engine", "training", "speed", "runs"}
    left_out = [one.name for one in findings if one.state == LEFT_OUT]
    assert all("float16" in name or "FSDP2" in name or "compiled" in name for name in left_out)
    assert "times the bound" in (tmp_path / "results.md").read_text()


@pytest.mark.slow
def test_a_part_that_does_not_end_is_said(tmp_path: Path) -> None:
    command = [*COMMAND, str(tmp_path), "--only", "speed", "--minutes", "0.01"]
    assert subprocess.run(command, capture_output=True, timeout=100, check=False).returncode == 1
    (finding,) = json.loads((tmp_path / "results.json").read_text())["findings"]
    assert "not at its end" in finding["said"]
