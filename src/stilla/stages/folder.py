"""The folder of a run: where things lie, which stages are finished, and whether they still fit.

    recipe.yaml        resolved, every default written out     student/        plain Hugging Face folder
    environment.json   versions, machine, seeds                baseline/       likewise, trained on labels alone
    stages.json        what each stage depended on             export/<kind>/  files ready to deploy
    teacher/           if it was trained here                  scores.json     what was measured
    checkpoints/       of stages that are not finished         report.html     the same for people
    log.jsonl          loss terms over training                profile/        traces, if asked for
    completions/       texts that the teacher wrote, if asked for
    cache/             what it said of the training data, if that is stored
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from stilla.errors import RecipeError
from stilla.runtime.differences import Plain, differences, fingerprint
from stilla.runtime.paths import obstacle
from stilla.secrets import without_secrets


def is_run(path: Path) -> bool:
    """Whether a run lies there, finished or not."""
    return (path / "stages.json").is_file() or (path / "scores.json").is_file()


class RunFolder:
    """A run's folder on disk. Only the main process writes to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.environment = path / "environment.json"
        self.scores = path / "scores.json"
        self.log = path / "log.jsonl"
        self.report = path / "report.html"
        self.teacher = path / "teacher"
        self.student = path / "student"
        self.baseline = path / "baseline"
        self.exports = path / "export"
        self.profile = path / "profile"
        self.completions = path / "completions"
        self.cache = path / "cache"
        self._stages = path / "stages.json"

    def model(self, role: str, seed: int) -> Path:
        """Where the student or baseline of the n-th seed lies: the first in the open, the others under `seeds/`."""
        return self.path / role if seed == 0 else self.path / "seeds" / f"{role}-{seed}"

    def checkpoints(self, stage: str) -> Path:
        return self.path / "checkpoints" / stage

    def open(self, *, overwrite: bool) -> None:
        """Make the folder, or take up a run that is there.

        Raises:
            RecipeError: there is a folder with something else in it.
        """
        self.refuse_strangers()
        if overwrite and self._stages.exists():
            for name in _OURS:
                _remove(self.path / name)
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._stages.exists():
            self._write({})

    def refuse_strangers(self) -> None:
        """Raise if what lies at the path is no run: nothing of it may be touched.

        Raises:
            RecipeError: a place that no folder can be made at, or a folder with something else in it.
        """
        if why := obstacle(self.path):
            raise RecipeError(f"output: {why}")
        strange = self.path.exists() and any(self.path.iterdir()) and not self._stages.exists()
        if strange and not self._demo_only():
            raise RecipeError(f"output: {self.path} exists and is no run of Stilla; nothing in it was touched. "
                              "Give another `output`")

    def finished(self, stage: str, inputs: Plain) -> bool:
        """Whether the stage was finished with these very inputs.

        Raises:
            RecipeError: it was begun or finished with others; what differs, and the way on.
        """
        record = self._read().get(stage)
        if record is None:
            return False
        if record["fingerprint"] != fingerprint(inputs):
            changed = "\n".join(f"  {_in_words(line)}" for line in differences(record["inputs"], _plain(inputs)))
            raise RecipeError(
                f"{self.path} holds the stage `{stage}` of another recipe. What differs:\n{changed}\n"
                "Give another `output`, or --overwrite to throw the old run away")
        return bool(record["done"])

    def fits(self, stage: str, inputs: Plain) -> bool:
        """Whether a stage that may be repeated at little cost was finished with these very inputs."""
        record = self._read().get(stage)
        return record is not None and record["done"] and record["fingerprint"] == fingerprint(inputs)

    def begin(self, stage: str, inputs: Plain) -> None:
        self._record(stage, inputs, done=False)

    def finish(self, stage: str, inputs: Plain) -> None:
        self._record(stage, inputs, done=True)
        shutil.rmtree(self.checkpoints(stage), ignore_errors=True)

    def write(self, path: Path, text: str) -> None:
        """Replace a file at once: a reader or a full disk never sees half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(without_secrets(text), encoding="utf-8")
        os.replace(partial, path)

    def last_checkpoint(self, stage: str) -> Path | None:
        """The newest checkpoint that was written to its end; broken ones are removed."""
        found = sorted(self.checkpoints(stage).glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        for path in reversed(found):
            if _complete(path):
                return path
            shutil.rmtree(path, ignore_errors=True)
        return None

    def drop_log_after(self, stage: str, step: int) -> None:
        """Forget what a stage logged after the checkpoint that it continues from."""
        if not self.log.exists():
            return
        lines = self.log.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not _later(line, stage, step)]
        self.write(self.log, "".join(f"{line}\n" for line in kept))

    def append_log(self, entry: Plain) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(without_secrets(json.dumps(entry, allow_nan=False)) + "\n")

    def _demo_only(self) -> bool:
        """Whether there is only what a demo lays ready before its run."""
        return {path.name for path in self.path.iterdir()} <= {"data", "start", "demo.yaml", "recipe.yaml"}

    def _record(self, stage: str, inputs: Plain, *, done: bool) -> None:
        stages = self._read()
        stages[stage] = {"fingerprint": fingerprint(inputs), "done": done, "inputs": _plain(inputs)}
        self._write(stages)

    def _read(self) -> dict[str, Any]:
        if not self._stages.exists():
            return {}
        try:
            return dict(json.loads(self._stages.read_text(encoding="utf-8")))
        except ValueError as error:
            raise RecipeError(f"{self._stages}: cannot be read ({error}), and nothing else says which stages are finished. "
                              "Give another `output`, or --overwrite to throw the run away") from error

    def _write(self, stages: Plain) -> None:
        self.write(self._stages, json.dumps(stages, indent=1, ensure_ascii=False, default=str))


# stages.json last: without it, what is left of a removal that was stopped would be no run, and nobody might touch it
_OURS = ("recipe.yaml", "environment.json", "scores.json", "report.html", "log.jsonl", "teacher", "student", "baseline",
         "stages", "seeds", "export", "completions", "cache", "checkpoints", "profile", "evaluations", "trackers",
         "error.txt",
         "stages.json")


def _complete(checkpoint: Path) -> bool:
    # Trainer writes its state last
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _later(line: str, stage: str, step: int) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return True  # the last line of a killed process
    return bool(entry["stage"] == stage and entry["step"] > step)


def _in_words(difference: str) -> str:
    """Fingerprints say nothing to a person; how data are read stands under `data` in a recipe."""
    said = re.sub(r": [0-9a-f]{32} -> [0-9a-f]{32}$", ": not what it was then", difference)
    return f"data.{said.removeprefix('reading.')}" if said.startswith("reading.") else said


def _plain(inputs: Plain) -> Any:
    return json.loads(json.dumps(inputs, default=str))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
