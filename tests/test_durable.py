"""Nothing lost, nothing silently wrong: runs that are killed at any moment, and a flipped bit in every kind of file."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import stilla
from stilla.after import evaluate_run, report_run
from stilla.errors import StillaError
from stilla.runtime.files import contents
from stilla.stages.lock import OWNER
from stilla.training import checkpoints
from tests import tiny
from tests.faults import flip
from tests.forked import servers

pytestmark = pytest.mark.slow

MADE = ("teacher", "student", "baseline")


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    saved = {"trainer": {"save_strategy": "steps", "save_steps": 3, "logging_steps": 4}}
    plain = tiny.recipe(
        folder, teacher={"model": tiny.bert(folder / "start"), "train": {
            "epochs": 4, "batch_size": 8, "learning_rate": 5e-3, "precision": "float32", **saved}},
        distill={"epochs": 2, "learning_rate": 1e-3, "precision": "float32", **saved},
        evaluate={"baseline": True, "resamples": 100, "speed": False}, allow_weak_teacher=True,
        cache={"form": "dense"}, **changes)
    return {**plain, "data": {**plain["data"], "augment": "none"}}  # so that the teacher's answers can be kept


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    stilla.distill(**recipe(folder))
    return folder / "run"


def same(one: Path, other: Path) -> None:
    """The same students, scores and curves. Times differ."""
    for role in MADE:
        a, b = (contents(path / role, {"README.md"}) for path in (one, other))
        assert a == b, role
    mine, theirs = (stilla.Scores.load(path / "scores.json") for path in (one, other))
    assert {name: measured.quality for name, measured in mine.subjects.items()} == {
        name: measured.quality for name, measured in theirs.subjects.items()}
    assert mine.verdict == theirs.verdict
    assert curves(one) == curves(other)


def curves(run: Path) -> list[tuple[Any, ...]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    # a stage that was done again stands behind those that were not
    return sorted(((line["stage"], line["step"], line["loss"], line["terms"]) for line in lines if "loss" in line),
                  key=lambda line: line[:2])


def killed(file: Path, run: Path, after: float) -> bool:
    """Start the run, and kill it and all that it started so many seconds after it has begun to work; whether it was over."""
    (server,), log = servers(1), file.with_name("said.txt")
    process, code = server.start("stilla", ["run", file], {}, log), None
    while code is None and f'"process": {process},' not in ((run / OWNER).read_text() if (run / OWNER).exists() else ""):
        code = server.ended(within=0.02)
    if code is None:
        code = server.ended(within=after)
    if code is None:
        os.killpg(process, signal.SIGKILL)
        assert server.ended(within=60) is not None
        return False
    assert code == 0, log.read_text()
    return True


@pytest.mark.parametrize("chain", range(int(os.environ.get("KILL_CHAINS", "2"))))
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(tmp_path: Path, whole: Path, chain: int) -> None:
    file, run, draw = tmp_path / "recipe.yaml", tmp_path / "run", random.Random(chain)
    file.write_text(json.dumps(recipe(tmp_path)))
    kills = 0
    while not killed(file, run, draw.uniform(0, 1.5 * (kills + 1)) if kills < 6 else 600):
        kills += 1
    assert kills
    same(run, whole)
    assert not list(run.rglob(".*.new"))
    assert not list(run.rglob("*.partial"))
    assert not list((run / "checkpoints").glob("*/*"))


KINDS = {
    "weights": "student/model.safetensors", "teacher": "teacher/model.safetensors", "baseline": "baseline/model.safetensors",
    "config": "student/config.json", "tokenizer": "student/tokenizer.json",
    "tokenizer settings": "student/tokenizer_config.json", "stages": "stages.json", "scores": "scores.json",
    "environment": "environment.json", "recipe": "recipe.yaml", "cache": "cache/*.arrow", "cache's list": "cache/cache.json",
}


def outcome(call: Callable[[], object]) -> str:
    """'done', or why not, in words."""
    try:
        call()
    except StillaError as error:
        return str(error)
    return "done"


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_never_another_number(
    tmp_path: Path, whole: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same result, a stage that is done again, which is said, or a refusal in words."""
    draw = random.Random(kind)
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    file = draw.choice(sorted(run.glob(KINDS[kind])))
    flip(file, draw)
    first = stilla.Scores.load(whole / "scores.json")
    for call in (lambda: report_run(run), lambda: evaluate_run(run)):
        outcome(call)
    options = {**recipe(whole.parent), "output": str(run)}
    capfd.readouterr()
    ended = outcome(lambda: stilla.distill(**options))
    said = capfd.readouterr().err
    if ended == "done":
        same(run, whole)
        assert stilla.Run.load(run).scores.verdict == first.verdict
        if kind in ("weights", "teacher", "baseline", "config", "tokenizer", "tokenizer settings"):
            assert "done again" in said
    else:
        assert kind in ("stages", "cache", "cache's list"), ended
    if kind not in ("stages", "cache", "cache's list"):
        assert ended == "done", ended


@pytest.mark.parametrize("kind", ["weights", "config", "recipe", "environment"])
def test_what_is_damaged_is_refused_where_it_would_be_measured(tmp_path: Path, whole: Path, kind: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    flip(run / KINDS[kind], random.Random(1))
    assert (run / KINDS[kind]).name in outcome(lambda: evaluate_run(run))
    assert (run / "scores.json").read_bytes() == (whole / "scores.json").read_bytes()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended as its student's second checkpoint was there."""
    folder = tmp_path_factory.mktemp("stopped")

    class Stop(Exception):  # noqa: N818
        pass

    def stop(checkpoint: Path) -> None:
        seal(checkpoint)
        if checkpoint.parent.name == "student" and checkpoint.name == "checkpoint-6":
            raise Stop

    seal = checkpoints.seal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "seal", stop)
        with pytest.raises(Stop):
            stilla.distill(**recipe(folder))
    return folder / "run"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "flipped"])
def test_a_damaged_checkpoint_falls_back_and_ends_equal(
    tmp_path: Path, whole: Path, stopped: Path, name: str, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    options = {**recipe(stopped.parent), "output": str(run)}
    file = run / "checkpoints" / "student" / "checkpoint-6" / name
    if damage == "flipped":
        flip(file, random.Random(name))
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
    torch.manual_seed(99)
    stilla.distill(**options)
    assert f"checkpoint-6 is left out and removed: {name}" in capfd.readouterr().err
    same(run, whole)


def test_a_damaged_export_is_written_again(
    tmp_path: Path, whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    options = {**recipe(whole.parent), "output": str(run), "export": ["onnx"]}
    first = stilla.distill(**options).scores
    model = run / "export" / "onnx" / "model.onnx"
    before = model.read_bytes()
    flip(model, random.Random(0))
    assert "model.onnx is not what was written" in outcome(lambda: evaluate_run(run))
    capfd.readouterr()
    again = stilla.distill(**options).scores
    assert "model.onnx is not what was written" in capfd.readouterr().err
    assert model.read_bytes() == before
    assert again.subjects["onnx"].quality == first.subjects["onnx"].quality
    tokenizer = run / "export" / "onnx" / "tokenizer.json"
    flip(tokenizer, random.Random(0))
    stilla.distill(**{**options, "export": []})  # no longer asked for, but measured with the others
    assert "tokenizer.json is not what was written" in capfd.readouterr().err
    assert safetensors.torch.load_file(run / "student" / "model.safetensors")
