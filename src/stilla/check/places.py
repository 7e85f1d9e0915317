"""The recipe by itself: its places by name, names in no table, and what its run folder holds. Without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stilla.check.found import Found
from stilla.errors import RecipeError, TrustError, all_of, did_you_mean, one_of, short
from stilla.recipe import ModelSource, ObjectiveSpec, Recipe, Training
from stilla.recipe.code import code_in, in_words
from stilla.recipe.file import read
from stilla.recipe.in_words import secrets, shown_path
from stilla.recipe.models import STORED
from stilla.recipe.paths import named
from stilla.runtime.differences import differences
from stilla.runtime.paths import obstacle
from stilla.stages.folder import RunFolder, is_run
from stilla.stages.together import TogetherFolder

PROPOSES = "data.augment.model"


def stage_place(recipe: Recipe, number: int) -> str:
    """`distill`, or `distill[1]` where there are several stages."""
    return "distill" if len(recipe.distill) == 1 else f"distill[{number}]"


def objectives(recipe: Recipe) -> Iterator[tuple[str, ObjectiveSpec]]:
    """Every objective that is named, with its place in the recipe."""
    for number, stage in enumerate(recipe.distill):
        for index, spec in enumerate(stage.objectives or ()):
            yield f"{stage_place(recipe, number)}.objectives[{index}]", spec
    for index, spec in enumerate((recipe.personal.objectives if recipe.personal is not None else None) or ()):
        yield f"personal.objectives[{index}]", spec


def trainings(recipe: Recipe) -> Iterator[tuple[str, Training]]:
    """Every training section with its place in the recipe."""
    if recipe.teacher.train is not None:
        yield "teacher.train", recipe.teacher.train
    for number, stage in enumerate(recipe.distill):
        yield stage_place(recipe, number), stage
    if recipe.personal is not None:
        yield "personal", recipe.personal


def unknown_names(recipe: Recipe) -> list[str]:
    """Names that are in none of the tables, without importing what the tables name."""
    from stilla.tasks import KINDS as TASKS

    return [*_unknown([("task", recipe.task)], TASKS),
            *_unknown_parts([(f"{place}.kind", spec.kind) for place, spec in objectives(recipe)], recipe.export)]


def unknown_in(plain: Mapping[str, Any]) -> list[str]:
    """The same of what stands in a recipe that cannot be understood as a whole; its task is looked at as it is read."""
    found: list[tuple[str, Any]] = []
    stages, personal = plain.get("distill"), plain.get("personal")
    many = [stages] if isinstance(stages, Mapping) else stages if isinstance(stages, list) else []
    places = [("distill" if len(many) == 1 else f"distill[{number}]", one) for number, one in enumerate(many)]
    for place, stage in [*places, ("personal", personal)]:
        specs = stage.get("objectives") if isinstance(stage, Mapping) else None
        found += [(f"{place}.objectives[{index}].kind", spec.get("kind")) for index, spec in
                  enumerate(specs if isinstance(specs, list) else []) if isinstance(spec, Mapping)]
    export = plain.get("export")
    formats = [export] if isinstance(export, str) else export if isinstance(export, list) else []
    return _unknown_parts([(place, kind) for place, kind in found if isinstance(kind, str)],
                          [one for one in formats if isinstance(one, str)])


def _unknown_parts(kinds: Iterable[tuple[str, str]], formats: Iterable[str]) -> list[str]:
    from stilla.export import KINDS as FORMATS
    from stilla.objectives import KINDS as OBJECTIVES

    return [*_unknown(kinds, OBJECTIVES), *_unknown([("export", one) for one in formats], FORMATS, own=False)]


def _unknown(named: Iterable[tuple[str, str]], table: Mapping[str, object], *, own: bool = True) -> list[str]:
    """`own`: whether a person's class may be named too."""
    problems = []
    for place, name in named:
        if name not in table and not (own and ":" in name):
            also = ", or package.module:Class" if own else ""
            problems.append(f"{place}: got {short(name, 80)!r}; expected {one_of(list(table))}{also}."
                            f"{did_you_mean(name, table)}")
    return problems


def lacking_examples(recipe: Recipe) -> list[str]:
    """What asks for labelled or unlabelled examples where the data name none."""
    shares = [f"{stage_place(recipe, number)}.unlabelled" for number, stage in enumerate(recipe.distill)
              if stage.unlabelled is not None]
    if all(one.unlabelled is None for one in recipe.data.by_name.values()):
        found = [f"{place}: a share of data.unlabelled, and there is none; name files or folders there, or leave it out"
                 for place in shares]
        if recipe.completions is not None and recipe.completions.of == "unlabelled":
            found.append("completions.of: got 'unlabelled', and there is no data.unlabelled; expected 'all'")
        return found
    without = [place for place, one in recipe.data.placed.items() if one.train is None]
    if not without:
        return []
    why = f"there are no labelled training data ({all_of([f'{place}.train' for place in without])})"
    found = [f"{place}: a share of data.unlabelled, and {why}, so all examples are unlabelled; leave it out"
             for place in shares if not recipe.data.is_labelled]
    found += [f"teacher.train: {why} that it could learn from; give a teacher that knows the task"] \
        if recipe.teacher.train is not None else []
    found += [f"evaluate.baseline: {why} that a student could learn from without a teacher; leave it out"] \
        if recipe.evaluate.baseline else []
    measured = "student.width" if recipe.student.width is not None else "student.interpolate.units"
    found += [f"{measured}: {why} by which it could be measured what matters; name some there, or leave it out"] \
        if recipe.student.by_importance and recipe.completions is None else []
    return found + [
        f"{place}.unlabelled.near: {why} that anything could be near to; leave it out"
        for place, one in recipe.data.placed.items()
        if place in without and one.unlabelled is not None and one.unlabelled.near is not None]


def told_secrets(recipe: Recipe) -> list[str]:
    """Passwords and tokens in a recipe that was made in Python; those in files and on the command line are known earlier."""
    single = len(recipe.distill) == 1
    return [f"{shown_path(one.path, single)}: {one.text}" for one in secrets(recipe.model_dump(mode="python"))]


def missing_packages(recipe: Recipe) -> list[str]:
    """What the formats and the teacher need and this machine lacks: better known before a training than after it."""
    from stilla.export import missing_packages as missing

    api = [f'teacher.api: needs {name}, which is not installed: pip install "stilla[api]"' for name in ("httpx2", "tenacity")
           if recipe.teacher.api is not None and find_spec(name) is None]
    lacking = list(dict.fromkeys(name for kind in recipe.export for name in missing(kind)))
    if not lacking:
        return api
    what = f"{all_of(recipe.export)} need{'s' if len(recipe.export) == 1 else ''} {all_of(lacking)}"
    return [*api, f"export: {what}, which {'is' if len(lacking) == 1 else 'are'} not installed: pip install \"stilla[onnx]\""]


def missing_folders(recipe: Recipe) -> list[str]:
    """Models that are named by a path where nothing is."""
    taught = [] if recipe.teacher.api is not None else [("teacher.model", recipe.teacher.model)]
    generate = None if recipe.data.unlabelled is None else recipe.data.unlabelled.generate
    writes = [] if generate is None else [("data.unlabelled.generate.model", generate.model)]
    proposes = [(PROPOSES, name) for place, name in named(recipe) if ".".join(map(str, place)) == PROPOSES]
    places = (*taught, ("student.model", recipe.student.model), *writes, *proposes)
    missing = [(place, name) for place, name in places if name and _is_path(name) and not _is_here(name)]
    if not missing:
        return []
    from stilla.data.sources import near_models

    return [f"{place}: {name!r}: no such {'file' if Path(name).suffix in STORED else 'folder'}."
            f"{near_models(Path(name).expanduser())}" for place, name in missing]


def has_to_be_downloaded(source: ModelSource) -> bool:
    """Whether the Hugging Face Hub has the model, and this machine does not."""
    if source.config is not None or ":" in source.model or _is_path(source.model) or _is_here(source.model):
        return False
    from huggingface_hub import try_to_load_from_cache

    weights = ("model.safetensors", "model.safetensors.index.json")
    cached = [try_to_load_from_cache(source.model, name, revision=source.revision) for name in weights]
    return not any(isinstance(one, str) for one in cached)


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).suffix in STORED


def _is_here(name: str) -> bool:
    return Path(name).expanduser().exists()


def look_at_code(recipe: Recipe, found: Found) -> None:
    """What the recipe lets run beside Stilla: whoever wrote it has to be trusted."""
    if code := code_in(recipe):
        found.notes.append(f"code: this recipe runs code: {in_words(code)}. Use it only if you trust who wrote it")


def look_at_output(recipe: Recipe, found: Found) -> None:
    """What the run folder holds already."""
    folder = Path(recipe.output)
    parts = {f"data.parts.{name}.cache": place for name, place in recipe.data.stores.items()}
    found.problems += [f"{name}: {why}" for name, place in {"cache.path": recipe.cache.path, **parts}.items()
                       if place is not None and "://" not in place and (why := obstacle(Path(place)))]
    if why := obstacle(folder):
        found.problems.append(f"output: {why}")
        return
    with found.attempt():
        (RunFolder(folder) if recipe.search is None else TogetherFolder(folder, "search")).refuse_strangers()
    if not is_run(folder) or not (folder / "recipe.yaml").is_file():
        return
    changed = _changes(recipe, folder / "recipe.yaml")
    if changed:
        found.notes.append(
            f"output: {folder} holds a run of another recipe. What depends on these is refused, unless --overwrite "
            f"throws the old run away: {'; '.join(changed)}"
        )
    else:
        found.notes.append(f"output: {folder} holds a run of this recipe; what is finished in it is skipped")


def _changes(recipe: Recipe, file: Path) -> list[str]:
    """What differs from the run's resolved recipe, apart from what this one leaves open."""
    try:
        before = read(file, trusted=code_in(recipe))  # whoever made that folder has no say in what runs here
    except TrustError as error:
        return [str(error)]
    except RecipeError:
        return ["its recipe.yaml cannot be read"]
    old, new = (one.model_dump(mode="json", exclude={"output", "allow_weak_teacher"}) for one in (before, recipe))
    if recipe.student.limited:  # a run writes what it chose
        old["student"] = new["student"]
    if recipe.student.layers_by != "spaced":  # likewise
        old["student"] |= {name: new["student"][name] for name in ("layers", "layers_by")}
    if new["data"].get("label_weights") == "balanced":
        old["data"]["label_weights"] = "balanced"
    left_open = [number for number, stage in enumerate(recipe.distill) if stage.objectives is None]
    chosen = tuple(f"distill.{number}.objectives" for number in left_open)
    changed = [line.split(": ", 1) for line in differences(old, new)
               if not line.endswith(("-> nothing", "-> auto")) and not line.startswith(chosen)]
    return [f"{_as_written(place, len(recipe.distill) == 1)}: {change}" for place, change in changed]


def _as_written(place: str, single_stage: bool) -> str:
    """`distill.0.objectives.1.kind` as a recipe's other messages have it."""
    return shown_path(tuple(int(step) if step.isdecimal() else step for step in place.split(".")), single_stage)
