"""A label curve: how good students are with few labels a class, with and without a teacher, and with the rest unlabelled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from stilla import data
from stilla.check import refuse_known_problems, refuse_wrong_names
from stilla.errors import FolderBusyError, FolderError, RecipeError, all_at_once, all_of, counted
from stilla.evaluate import headline_split
from stilla.recipe import PerClass, Recipe, Teacher, Unlabelled
from stilla.recipe.yaml import flow
from stilla.report.curve import write_curve
from stilla.report.curves import read_log
from stilla.run import with_student, with_teacher
from stilla.runtime.files import sealed, unsealed, write_whole
from stilla.runtime.narrate import say
from stilla.runtime.processes import processes
from stilla.runtime.quiet import quiet_libraries
from stilla.scores import Interval
from stilla.series.answers import with_shared_cache
from stilla.stages.folder import RunFolder
from stilla.stages.given import Call, Source
from stilla.stages.measuring import measure
from stilla.stages.starting import saved_student, trained
from stilla.stages.together import TogetherFolder

LABELS, DISTILLED, REST = "labels alone", "distilled", "distilled, the rest unlabelled"
KINDS = (LABELS, DISTILLED, REST)
FILE = "reached.json"
SIZES, DRAWS = (4, 8, 16, 32, 64), 3


@dataclass(frozen=True)
class Point:
    """Students of one draw of labels: the quality of each kind with its bootstrap interval, and the steps that it took.
    `labelled`: how many labels there were in all."""

    per_class: int
    draw: int
    labelled: int
    quality: Mapping[str, Interval]
    steps: Mapping[str, int]


@dataclass(frozen=True)
class Curve:
    """All points. `split`: what was measured on. `left`: points that other processes are still making."""

    folder: Path
    metric: str
    higher_is_better: bool
    split: str
    teacher: float
    points: tuple[Point, ...]
    page: Path
    left: int = 0

    @property
    def sizes(self) -> list[int]:
        return sorted({one.per_class for one in self.points})

    def at(self, per_class: int, kind: str) -> tuple[float, ...]:
        """By draw."""
        return tuple(one.quality[kind].value for one in self.points if one.per_class == per_class and kind in one.quality)

    def mean(self, per_class: int, kind: str) -> Interval | None:
        """Over the draws, with Student's t interval; of a single draw with the interval over its examples."""
        values = self.at(per_class, kind)
        if len(values) < 2:
            here = [one.quality[kind] for one in self.points if one.per_class == per_class and kind in one.quality]
            return here[0] if here else None
        mean = sum(values) / len(values)
        wide = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
        return Interval(mean, mean - wide, mean + wide)


def curve(
    recipe: Source = None, *overrides: str, per_class: Sequence[int] = SIZES, draws: int = DRAWS, overwrite: bool = False,
    **options: Any,
) -> Curve:
    """Train and measure students with so many labels a class, each number with several draws of them.

    The teacher is one and the same for all, trained on all labels where the recipe trains it. Takes a recipe's file, what
    stands in one, or its sections as keywords. The same again goes on where it was stopped; more sizes and draws are added.

    Raises:
        StillaError: whatever a person has to put right; before anything is trained, where it can be known.
        KeyboardInterrupt: stopped; the same again goes on.
    """
    call = Call.of(recipe, overrides, options)
    if call.given:
        raise RecipeError("curve: data and models have to be named: files, folders or Hugging Face names")
    return _curve(call.recipe, sorted(set(per_class)), draws, overwrite=overwrite)


def _curve(recipe: Recipe, sizes: Sequence[int], draws: int, *, overwrite: bool) -> Curve:
    quiet_libraries()
    _refuse(recipe, sizes, draws)
    folder = TogetherFolder(Path(recipe.output), "curve")
    folder.open(recipe.model_dump(mode="json", exclude={"output"}), overwrite=overwrite)
    taught = recipe.model_copy(update={"teacher": _teacher(recipe, folder)})
    say(f"curve: {counted(len(sizes), 'number')} of labels × {counted(draws, 'draw')} × {len(KINDS)} students")
    points = [(_name(size, draw, rest=rest), _at(taught, size, draw, rest=rest))
              for draw in range(draws) for size in sizes for rest in (False, True)]
    busy = [(name, one) for name, one in points if not _made(one, folder, name)]
    for name, one in busy:  # whose process has come to its end since, or was stopped
        _made(one, folder, name)
    with folder.choosing():  # who comes last sees all, and writes the page
        return _read(recipe, folder, sizes, draws)


def _refuse(recipe: Recipe, sizes: Sequence[int], draws: int) -> None:
    if not sizes or sizes[0] < 1 or draws < 1:
        raise RecipeError(f"curve: got {list(sizes)} labels a class in {counted(draws, 'draw')}; expected numbers from 1 on, "
                          "as in --per-class 4,8,16 --draws 3")
    if recipe.search is not None:
        raise RecipeError("curve: this recipe has values to be searched; give the best.yaml of its search, or search=null")
    if recipe.teacher.api is not None:
        raise RecipeError("curve: it compares students with one teacher's logits on what has no labels, and a teacher behind "
                          "an address gives none (teacher.api)")
    if recipe.data.train is None:
        raise RecipeError("curve: the recipe has no labelled training data (data.train) of which some could be taken")
    if unused := list(_unused(recipe)):
        raise all_at_once(unused, RecipeError)
    if processes().num_processes > 1:
        raise RecipeError("curve: a launcher lets several processes share one training. Start `stilla curve` several times "
                          "instead: all that work in one folder share its points")
    folder = TogetherFolder(Path(recipe.output), "curve")
    folder.refuse_strangers()
    for rest in (False, True):  # what is wrong at one size is wrong at all; of the largest the least is left
        one = _at(recipe, sizes[-1], 0, rest=rest).model_copy(update={"output": str(folder.runs / "0")})
        if rest:
            _refuse_all_labels(recipe, sizes)
        refuse_wrong_names(one)
        refuse_known_problems(one)


def _unused(recipe: Recipe) -> Iterator[str]:
    """What the recipe asks for and no point of a curve would do, in words."""
    section, asked = recipe.data, recipe.evaluate
    if section.each:
        yield ("curve: labels a class are of one task, and several are learnt here at once. Draw the curve of each by "
               "itself, with a recipe of that task")
    if section.limit is not None:
        limit = section.limit.model_dump() if isinstance(section.limit, PerClass) else section.limit
        yield (f"curve: data.limit: got {flow(limit)}; a curve takes so many labels of each class as --per-class says, and "
               "calls the others unlabelled. Leave it out (data.limit=null)")
    if asked.seeds > 1:
        yield (f"curve: evaluate.seeds: got {asked.seeds}; a curve trains one student from each draw of labels. Say "
               f"--draws {asked.seeds} instead, and evaluate.seeds=1")
    alone = "the students of a curve are measured as a whole, on one split"
    if asked.slices:
        yield f"curve: evaluate.slices: got {all_of(asked.slices)}; {alone}. Leave it out (evaluate.slices=[])"
    if section.shifted:
        yield f"curve: data.shifted: got {all_of(list(section.shifted))}; {alone}. Leave it out (data.shifted={{}})"
    if recipe.export:
        yield (f"curve: export: got {all_of(recipe.export)}; the students of a curve are measured, and none is exported. "
               "Leave it out (export=[])")


def _refuse_all_labels(recipe: Recipe, sizes: Sequence[int]) -> None:
    """Where a number of labels takes all training examples, there is no rest to learn from."""
    too_large, there = list[int](), 0
    for size in reversed(sizes):
        there, left = data.number_left(_at(recipe, size, 0, rest=True).data, seed=recipe.seed)
        if left:
            break
        too_large.insert(0, size)
    if too_large:
        fewer = [one for one in sizes if one not in too_large]
        instead = f"--per-class {','.join(map(str, fewer))}" if fewer else "smaller numbers"
        raise RecipeError(
            f"curve: --per-class {','.join(map(str, too_large))}: {'that is' if len(too_large) == 1 else 'each is'} all of "
            f"the {there:,} labelled training examples, so that nothing is left for {REST!r}. "
            f"Give {instead}, or more training data")


def _at(recipe: Recipe, size: int, draw: int, *, rest: bool) -> Recipe:
    """The recipe of one point. `rest`: what is left of the training data is learnt too, by the teacher's answers."""
    evaluate = recipe.evaluate.model_copy(update={"baseline": not rest, "speed": False})
    named = recipe.data.unlabelled
    unlabelled = Unlabelled(rest=True) if named is None else named.model_copy(update={"rest": True})
    section = recipe.data.model_copy(update={
        "limit": PerClass(per_class=size, draw=draw), "unlabelled": unlabelled if rest else None})
    changed: dict[str, Any] = {"data": section, "evaluate": evaluate, "personal": None}  # a curve is of shared students
    if not rest:
        changed["distill"] = tuple(stage.model_copy(update={"unlabelled": None}) for stage in recipe.distill)
        if recipe.completions is not None and recipe.completions.of == "unlabelled":
            changed["completions"] = None
    return recipe.model_copy(update=changed)


def _teacher(recipe: Recipe, folder: TogetherFolder) -> Teacher:
    """Given, or trained once on all labels."""
    if recipe.teacher.train is None:
        return recipe.teacher
    place = RunFolder(folder.shared / "teacher")
    whole = recipe.model_copy(update={"output": str(place.path), "data": recipe.data.model_copy(
        update={"limit": None, "unlabelled": None})})
    with folder.choosing():
        place.open(overwrite=False)
        try:
            with_teacher(whole, place)
        finally:
            place.close()
    return Teacher(**trained(recipe.teacher, place.teacher).model_dump())


def _made(recipe: Recipe, folder: TogetherFolder, name: str) -> bool:
    """Whether the students of a point are there, after they were made if they were not; else another process makes them."""
    place = folder.run(name)
    if (place.path / FILE).is_file():
        return True
    try:
        place.open(overwrite=False)
    except FolderBusyError:
        return False
    try:
        if (place.path / FILE).is_file():  # by now
            return True
        say(f"curve: {name}")
        write_whole(place.path / FILE, sealed(_reached(recipe.model_copy(update={"output": str(place.path)}), place,
                                                       folder.shared)))
    finally:
        place.close()
    return True


def _reached(recipe: Recipe, place: RunFolder, shared: Path) -> dict[str, Any]:
    stages = with_teacher(recipe, place).resolved(of_many=True).chosen()
    written = stages.completions()
    stages = with_shared_cache(with_student(stages, written), shared)
    cut = stages.narrowed(written)
    roles = ["student", *(["baseline"] if recipe.evaluate.baseline else [])]
    for role in roles:
        stages.student(role, 0, written, cut)
    task, splits = stages.place.task, data.to_measure(stages.place.splits)
    split = headline_split(list(splits))
    made = {role: [saved_student(stages.recipe, place, task, role, 0)] for role in roles}
    scores = measure(stages.recipe, task, {split: splits[split]}, stages.teacher, made, {})
    steps = {one.subject: int(max(point[0] for point in one.losses["total"])) for one in read_log(place.log)[0].stages
             if one.subject in roles and "total" in one.losses}
    quality = {role: scores.subjects[role].quality[split][scores.metric] for role in roles}
    return {"metric": scores.metric, "higher_is_better": scores.higher_is_better, "split": split,
            "teacher": scores.teacher[scores.metric], "labelled": len(stages.place.splits["train"]), "steps": steps,
            "quality": {role: [one.value, one.low, one.high] for role, one in quality.items()}}


def _read(recipe: Recipe, folder: TogetherFolder, sizes: Sequence[int], draws: int) -> Curve:
    found = {(size, draw): files for size in sizes for draw in range(draws) if (files := dict(_files(folder, size, draw)))}
    if not found:
        raise FolderError(f"{folder.path}: other processes are making all of its points; run the same again to see them")
    left = sum(2 - len(found.get((size, draw), {})) for size in sizes for draw in range(draws))
    some = next(iter(next(iter(found.values())).values()))
    points = [_point(size, draw, files) for (size, draw), files in found.items()]
    made = Curve(folder.path, some["metric"], some["higher_is_better"], some["split"], some["teacher"], tuple(points),
                 folder.page, left)
    write_curve(made, recipe.output, KINDS, folder.page)
    return made


def _point(size: int, draw: int, files: Mapping[bool, Mapping[str, Any]]) -> Point:
    """`files`: what was reached, with the rest unlabelled and without."""
    quality, steps = dict[str, Interval](), dict[str, int]()
    for rest, one in files.items():
        for role, values in one["quality"].items():
            kind = REST if rest else DISTILLED if role == "student" else LABELS
            quality[kind], steps[kind] = Interval(*values), one["steps"][role]
    return Point(size, draw, next(iter(files.values()))["labelled"], quality, steps)


def _files(folder: TogetherFolder, size: int, draw: int) -> Iterator[tuple[bool, dict[str, Any]]]:
    for rest in (False, True):
        file = folder.runs / _name(size, draw, rest=rest) / FILE
        if file.is_file():
            yield rest, unsealed(file.read_text(encoding="utf-8"), needed=True)


def _name(size: int, draw: int, *, rest: bool) -> str:
    return f"{size}-{draw}{'-rest' if rest else ''}"
