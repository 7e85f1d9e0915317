"""The folder of a run: where things lie, which stages are finished, and whether they still fit.

    recipe.yaml        resolved, every default written out     student/        plain Hugging Face folder
    environment.json   versions, machine, seeds                baseline/       likewise, trained on labels alone
    stages.json        what each stage depended on             export/<kind>/  files ready to deploy
    teacher/           if it was trained here                  scores.json     what was measured
    checkpoints/       of stages that are not finished         report.html     the same for people
    log.jsonl          loss terms over training                profile/        traces, if asked for
    personal/<n>/      parts of the student for groups; adapted/: what became of a teacher that was adapted; if asked for
    answers/           what a teacher behind an address answered; answers.json: what came of it
    completions/       texts that the teacher wrote, if asked for
    generated/         unlabelled texts that a language model wrote; proposals/: words that a masked one did, if asked for
    unlabelled/        what it thinks of unlabelled examples; negatives/: what does not answer queries; both if asked for
    width/, reptile/   which units a narrower student keeps; the body that other tasks made of a student's start
    cache/             what the teacher said of the training data, if that is stored
    data/, start/      examples and models that Python gave, by content (stages/stored.py)
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stilla.errors import FolderError, RecipeError, all_of
from stilla.runtime.differences import Plain, differences, fingerprint
from stilla.runtime.files import PARTIAL, is_as_sealed, is_as_signed, line_of, read_line, sealed, write_whole
from stilla.runtime.narrate import say
from stilla.runtime.paths import TRIAL, obstacle
from stilla.secrets import hidden, without_secrets
from stilla.stages import record, steps
from stilla.stages.lock import LOCK, OWNER, Lock
from stilla.stages.shelf import Shelf


def is_run(path: Path) -> bool:
    """Whether a run lies there, finished or not."""
    return (path / "stages.json").is_file() or (path / "scores.json").is_file()


def kind_at(path: Path) -> str | None:
    """What of Stilla lies there: a run, a search or a label curve."""
    if is_run(path):
        return "run"
    return next((kind for kind in ("search", "curve") if (path / f"{kind}.json").is_file()), None)


def instead_of(path: Path, kind: str) -> str:
    """The way on where an output holds something else: a place beside it, outside of a search's or a curve's folder."""
    inside = path.parent.name in ("trials", "points") and kind_at(path.parent.parent) is not None
    beside = path.parent.parent if inside else path
    return f"Give another `output`, for example output={beside.with_name(f'{beside.name}-{kind}')}"


_ANOTHER_VERSION = "  nothing that the recipe says: another version of Stilla began it, which wrote down other fields"


class RunFolder:
    """A run's folder on disk. Only the main process writes to it. processes: how many share a training. shelf: where stages
    lie that runs beside it have finished."""

    def __init__(self, path: Path, processes: int = 1, shelf: Shelf | None = None) -> None:
        self.path = path
        self._processes = processes
        self._shelf = shelf
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
        self.generated = path / "generated"
        self.proposals = path / "proposals"
        self.unlabelled = path / "unlabelled"
        self.width = path / "width"
        self.cache = path / "cache"
        self._stages = path / "stages.json"
        self._lock = Lock(path)

    def model(self, role: str, seed: int) -> Path:
        """Where the student, the baseline or the `personal` parts of the n-th seed lie: the first in the open, the others
        under `seeds/`."""
        return self.path / role if seed == 0 else self.path / "seeds" / f"{role}-{seed}"

    def checkpoints(self, stage: str) -> Path:
        return self.path / "checkpoints" / stage

    def open(self, *, overwrite: bool) -> None:
        """Make the folder, or take up a run that is there; until `close` nobody else can.

        Raises:
            RecipeError: there is a folder with something else in it.
            FolderError: another run is at work in it.
        """
        self.refuse_strangers()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.take()
        try:
            self.refuse_strangers()
            if overwrite and self._stages.exists():
                for name in _OURS:
                    _remove(self.path / name)
            if not self._stages.exists():
                record.write(self._stages, {})
            for wrong in self.changed():
                say(f"{wrong}; this run writes it anew")
            self._tidy()
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Let others in."""
        if self._shelf is not None:
            self._shelf.release()
        self._lock.release()

    @contextmanager
    def held(self) -> Iterator[None]:
        """A finished run to which something is added.

        Raises:
            FolderError: another run is at work in it.
        """
        self._lock.take()
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def prepared(self) -> Iterator[bool]:
        """The folder of a run, held; made where there is none, with nothing begun in it. Whether there was none.

        Raises:
            RecipeError: there is a folder with something else in it.
            FolderError: another run is at work in it.
        """
        self.refuse_strangers()
        self.path.mkdir(parents=True, exist_ok=True)
        with self.held():
            fresh = not self._stages.exists()
            if fresh:
                record.write(self._stages, {})
            yield fresh

    def forget(self) -> None:
        """Leave nothing of a run in which nothing was begun, while it is held."""
        if self._stages.exists() and not record.read(self._stages):
            self._stages.unlink()
            if {path.name for path in self.path.iterdir()} <= {LOCK, OWNER}:
                shutil.rmtree(self.path)

    def refuse_strangers(self) -> None:
        """Raise if what lies at the path is no run: nothing of it may be touched.

        Raises:
            RecipeError: a place that no folder can be made at, or a folder with something else in it.
        """
        if why := obstacle(self.path):
            raise RecipeError(f"output: {why}")
        if self.path.exists() and not self._stages.is_file() and not self._ready():
            there = kind_at(self.path)
            what = "exists and is no run of Stilla" if there is None else f"holds a {there} of Stilla, which is no run"
            raise RecipeError(f"output: {self.path} {what}; nothing in it was touched. {instead_of(self.path, 'run')}")

    def finished(self, stage: str, inputs: Plain) -> bool:
        """Whether the stage was finished with these very inputs, or in steps as large that other processes share.

        Raises:
            RecipeError: it was begun or finished with others; what differs, and the way on.
        """
        known = self._known_or_taken(stage, inputs)
        if known is None:
            return False
        if not known.fits(inputs, self._processes):
            lines = differences(known.inputs, record.plain(inputs))
            changed = "\n".join(f"  {_in_words(line)}" for line in lines)
            raise RecipeError(
                f"{self.path} holds the stage `{stage}` of another recipe. What differs:\n{changed or _ANOTHER_VERSION}\n"
                "Give another `output`, or --overwrite (in Python, overwrite=True) to throw the old run away"
                f"{_of_another_length(self.path, stage, lines)}")
        return known.done

    def fits(self, stage: str, inputs: Plain) -> bool:
        """Whether a stage that may be repeated at little cost was finished with these very inputs."""
        known = self._known_or_taken(stage, inputs)
        return known is not None and known.done and known.fingerprint == fingerprint(inputs)

    def refuse_other_steps(self, recipe: Plain) -> None:
        """See `record.refuse_other_steps`, for a recipe of which these processes are to train something."""
        record.refuse_other_steps(self.path, record.read(self._stages), steps.sizes(recipe, self._processes))

    def begin(self, stage: str, inputs: Plain) -> None:
        self._record(stage, inputs, done=False)

    def finish(self, stage: str, inputs: Plain, made: Path | None = None) -> None:
        """`made`: the file or folder that the stage made, whose content is written down."""
        self._record(stage, inputs, done=True, made=made)
        shutil.rmtree(self.checkpoints(stage), ignore_errors=True)
        if self._shelf is not None:
            self._shelf.give(stage, inputs, self.path, record.read(self._stages)[stage])

    def damage(self, stage: str) -> list[str]:
        """What of the files that a finished stage made is missing, or is not what was written; in words."""
        known = record.read(self._stages).get(stage)
        return [] if known is None or not known.done else known.damage(self.path)

    def is_damaged(self, stage: str) -> bool:
        """The same, said for a stage that is cheap to do again."""
        wrong = self.damage(stage)
        if wrong:
            say(f"{stage}: done again: {all_of(wrong)}")
        return bool(wrong)

    def refuse_damage(self, leave_out: Collection[str] = (), again: str = "") -> None:
        """`leave_out`: stages that are done again anyway. `again`: the command that goes on with the run.

        Raises:
            FolderError: files that stages made are missing, or are not what was written; all of them.
        """
        wrong = [f"{name}: {one}" for name, known in record.read(self._stages).items() if known.done and name not in leave_out
                 for one in known.damage(self.path)]
        if wrong:
            listed = "\n".join(f"  {one}" for one in wrong)
            raise FolderError(f"{self.path}: it is damaged, or was changed by hand:\n{listed}\n"
                              f"{again or f'`stilla run {self.recipe}`'} makes these stages again")

    def changed(self) -> list[str]:
        """Which of the files that the run wrote for later commands is not as it wrote it, and how to vouch for a change."""
        wrong = []
        for file, is_it, sign in ((self.recipe, is_as_signed, "its last line"),
                                  (self.environment, is_as_sealed, "`checksum`")):
            try:
                as_written = not file.exists() or is_it(file.read_text(encoding="utf-8"))
            except UnicodeDecodeError:
                as_written = False
            if not as_written:
                wrong.append(f"{file} is damaged, or was changed since the run wrote it (on purpose? Then take {sign} out)")
        return wrong

    def clear(self, stage: str, made: Path, *, by_parts: bool = False) -> None:
        """Make room for what a stage makes again. What is there is set aside: somebody may have changed it on purpose.

        `by_parts`: only files that are not what was written.
        """
        if by_parts:
            for name in record.read(self._stages)[stage].lost(self.path):
                name.unlink(missing_ok=True)
        elif os.path.lexists(made):
            aside = self.path / "set-aside" / made.name
            _remove(aside)
            aside.parent.mkdir(exist_ok=True)
            made.rename(aside)
            say(f"{stage}: what is left of it is in {aside}")

    def write(self, path: Path, content: str | Plain) -> None:
        """Replace a file at once, without secrets: no reader and no full disk sees half of it. Data get a checksum."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, without_secrets(content) if isinstance(content, str) else sealed(hidden(content)))

    def drop_log_after(self, stage: str, step: int) -> None:
        """Forget what a stage logged after the checkpoint that it continues from."""
        if not self.log.exists():
            return
        lines = self.log.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not _later(line, stage, step)]
        self.write(self.log, "".join(f"{line}\n" for line in kept))

    def append_log(self, entry: Plain) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(line_of(hidden(entry)))

    def _ready(self) -> bool:
        """Whether a run may begin there: nothing lies there, or what a demo lays ready before its run."""
        names = {path.name for path in self.path.iterdir() if not path.name.startswith(TRIAL)} - {LOCK, OWNER}
        return not names or ("demo.yaml" in names and names <= {"data", "start", "demo.yaml", ".laid.new"})

    def _known_or_taken(self, stage: str, inputs: Plain) -> record.Record | None:
        """What is known of a stage; what is not finished here may be on the shelf."""
        records = record.read(self._stages)
        known = records.get(stage)
        if self._shelf is None or (known is not None and known.done):
            return known
        taken = self._shelf.take(stage, inputs, self.path)
        if taken is None:
            return known
        record.write(self._stages, {**records, stage: taken})
        shutil.rmtree(self.checkpoints(stage), ignore_errors=True)
        return taken

    def _record(self, stage: str, inputs: Plain, *, done: bool, made: Path | None = None) -> None:
        known = record.read(self._stages)
        known[stage] = record.of(inputs, done=done, folder=self.path, made=made, processes=self._processes)
        record.write(self._stages, known)

    def _tidy(self) -> None:
        """Remove what killed processes left: files and folders that were being written, checkpoints of finished stages."""
        inside = [self.path / name for name in ("seeds", "stages", "negatives", "negatives/vectors")]
        for place in (self.path, self.exports, self.completions, self.generated, self.proposals, self.unlabelled, *inside):
            for kind in (f".*{PARTIAL}", ".*.new", ".*.old", f"{TRIAL}*"):
                for path in place.glob(kind):
                    _remove(path)
        for stage, known in self._known().items():
            if known.done:
                shutil.rmtree(self.checkpoints(stage), ignore_errors=True)

    def _known(self) -> record.Records:
        """None where it cannot be read: whoever needs it says so."""
        try:
            return record.read(self._stages)
        except RecipeError:
            return {}


# stages.json last: without it, what is left of a removal that was stopped would be no run, and nobody might touch it
_OURS = ("recipe.yaml", "environment.json", "scores.json", "report.html", "report", "log.jsonl", "teacher", "student",
         "baseline", "adapted", "personal", "stages", "seeds", "export", "completions", "generated", "proposals",
         "unlabelled", "negatives", "width", "reptile", "cache", "checkpoints", "profile", "answers.json", "evaluations",
         "trackers", "set-aside", "error.txt", "stages.json")


def _later(line: str, stage: str, step: int) -> bool:
    try:
        entry = read_line(line)
        return bool(entry["stage"] == stage and entry["step"] > step)
    except (ValueError, TypeError, KeyError):
        return True  # the last line of a killed process, or a damaged one


def _of_another_length(path: Path, stage: str, differences: Sequence[str]) -> str:
    """What a person may want who has changed nothing but how long a training is."""
    changed = {line.partition(":")[0].rpartition(".")[2] for line in differences} - {"form"}  # of a cache, from the length
    if not changed or not changed <= {"epochs", "max_steps", "effort", "extend"}:
        return ""
    instead = "" if stage.startswith("teacher") else (
        f"; or begin a run from the student that is there (student: {{model: {path}}} with another `output`)")
    return (". A training is not made longer in hindsight: its learning rate fell towards the end that it was given, and of "
            "a longer one every step would have been another. To go on where one has not converged, say so beforehand "
            f"(extend: 4, up to so many times as long){instead}")


def _in_words(difference: str) -> str:
    """Fingerprints say nothing to a person; how data are read stands under `data` in a recipe."""
    said = re.sub(r": [0-9a-f]{32} -> [0-9a-f]{32}$", ": not what it was then", difference)
    return f"data.{said.removeprefix('reading.')}" if said.startswith("reading.") else said


def _remove(path: Path) -> None:
    """Of a link only the link: what it leads to may be somebody else's."""
    if path.is_symlink():
        say(f"{path}: the link is removed, and what it leads to ({os.readlink(path)}) is left as it is")
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
