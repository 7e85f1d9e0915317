"""A checkpoint is believed where a list of its files says that all are as they were written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stilla.errors import TrainingError
from stilla.training.checkpoints import FILES, newest, rotate, seal, wrong_with
from tests.equivalence.setting import trainer


def checkpoint(folder: Path, step: int, best: Path | None = None) -> Path:
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (made / name).write_text(f"{name} of step {step}")
    (made / "trainer_state.json").write_text(json.dumps({"global_step": step, "best_model_checkpoint": best and str(best)}))
    seal(made)
    return made


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json",
                                  FILES])
@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b""), flip])
def test_a_checkpoint_that_lacks_anything_falls_back_to_the_one_before(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    good, broken = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10)
    assert newest(tmp_path) == (broken, [])
    damage(broken / name)
    whole, wrong = newest(tmp_path)
    assert whole == good
    ((path, words),) = wrong
    assert path == broken
    assert name in words or "not written to its end" in words


def test_a_checkpoint_without_its_list_was_not_written_to_its_end(tmp_path: Path) -> None:
    broken = checkpoint(tmp_path, 10)
    (broken / FILES).unlink()
    assert newest(tmp_path) == (None, [(broken, "it was not written to its end")])


def test_a_checkpoint_is_as_good_as_the_best_that_it_goes_by(tmp_path: Path) -> None:
    first, best = checkpoint(tmp_path, 2), checkpoint(tmp_path, 4)
    checkpoint(tmp_path, 6, best=best)
    last = checkpoint(tmp_path, 8, best=Path("elsewhere") / best.name)  # the folder may have moved
    assert newest(tmp_path) == (last, [])
    flip(best / "model.safetensors")
    whole, broken = newest(tmp_path)
    assert whole == first
    assert [path.name for path, _ in broken] == ["checkpoint-8", "checkpoint-6", "checkpoint-4"]
    assert "checkpoint-4, model.safetensors is damaged" in broken[0][1]


def test_older_checkpoints_go_when_the_newest_is_whole(tmp_path: Path) -> None:
    made = [checkpoint(tmp_path, step) for step in (2, 4, 6, 10)]
    (tmp_path / "checkpoint-of-mine").mkdir()
    rotate(tmp_path, None, None)
    assert all(one.exists() for one in made)
    rotate(tmp_path, 2, str(made[0]))
    assert [one.exists() for one in made] == [True, False, True, True]
    rotate(tmp_path, 1, None)
    assert [one.exists() for one in made] == [False, False, False, True]
    assert (tmp_path / "checkpoint-of-mine").exists()


@pytest.mark.slow
def test_every_checkpoint_of_a_training_is_sealed(tmp_path: Path) -> None:
    trainer(tmp_path, save_strategy="steps", save_steps=2, max_steps=4).train()
    for step in (2, 4):
        assert wrong_with(tmp_path / f"checkpoint-{step}") is None


@pytest.mark.slow
def test_the_last_checkpoint_is_looked_at_before_it_is_called_good(tmp_path: Path) -> None:
    made = trainer(tmp_path, save_strategy="steps", save_steps=2, max_steps=4)
    made.train()
    flip(tmp_path / "checkpoint-4" / "optimizer.pt")
    said = made.guard._not_finite(made.args, 4, [])
    assert "the last checkpoint is good (checkpoint-2); checkpoint-4 is not: optimizer.pt is damaged" in said
    shutil.rmtree(tmp_path / "checkpoint-2")
    assert "there is no checkpoint yet" in str(TrainingError(made.guard._not_finite(made.args, 4, [])))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 4, 5])
def test_what_is_logged_after_a_resume_covers_the_steps_that_it_says(tmp_path: Path, stop: int) -> None:
    """Lines every three steps; a stop between them loses nothing of the mean."""
    options = {"logging_steps": 3, "max_steps": 6, "save_strategy": "steps", "dropout": 0.1}
    whole = trainer(tmp_path / "whole", save_steps=6, **options)
    whole.train()
    trainer(tmp_path / "parts", save_steps=stop, **options).train()
    again = trainer(tmp_path / "parts", save_steps=6, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop}"))

    def lines(one: object) -> list[dict[str, float]]:
        return [{name: value for name, value in entry.items() if name in ("step", "loss") or name.startswith("terms/")}
                for entry in one.state.log_history if "loss" in entry]  # type: ignore[attr-defined]

    assert [entry["step"] for entry in lines(whole)] == [3, 6]
    assert lines(again) == lines(whole)
