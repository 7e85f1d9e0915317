"""The documentation says what the code does: its lists, links, commands, recipes and programs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from stilla import objectives
from stilla.objectives import KINDS as OBJECTIVES
from stilla.objectives.base import Term, options_model
from stilla.recipe import Recipe
from stilla.recipe.file import from_options
from stilla.recipe.kinds import KINDS as TASKS
from stilla.recipe.yaml import load
from stilla.signals import Dense
from tests import markdown, tables

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "stilla"
WHOLE = {"task": "text-classification", "data": "reviews.csv", "teacher": "./bert", "student": 3}

every_page = pytest.mark.parametrize("page", markdown.PAGES, ids=lambda page: page.name)


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.stem)
def test_the_lists_are_those_of_the_code(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == tables.filled(text), "python -m tests.tables renews them"


def test_every_list_is_on_some_page() -> None:
    found = {f"{name}: {argument}" if argument else name for page in tables.PAGES
             for name, argument, _ in tables.PLACE.findall(page.read_text(encoding="utf-8"))}
    assert {f"table: {section}" for section in tables.SECTIONS} <= found
    assert {f"options: {kind}" for kind in OBJECTIVES} <= found
    assert {f"fields: {task}" for task in TASKS} <= found
    assert {"formats", "metrics", "families", "floors"} <= found


def test_every_objective_has_its_section() -> None:
    headings = re.findall(r"^## `(\w+)`$", (DOCS / "objectives.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == list(OBJECTIVES)


def test_what_a_task_has_to_say_is_named() -> None:
    from stilla.tasks.base import Task
    from stilla.tasks.exam import Exam, ForwardExam

    page = (DOCS / "adding-a-task.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)[^`]*`", "".join(line for line in page.splitlines(keepends=True) if line.startswith("|"))))
    assert not Task.__abstractmethods__ - named
    says = {name for kind in (Exam, ForwardExam) for name in vars(kind) if not name.startswith("_")}
    assert {*Exam.__abstractmethods__, *ForwardExam.__abstractmethods__} <= says
    assert not says - named


def test_every_wing_is_in_the_architecture() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    wings = page.partition("## The wings")[2].partition("Every file")[0]
    named = re.findall(r"^\| `([\w.]+)/?`(?:, `([\w.]+)`)?", wings, re.MULTILINE)
    there = {path.name for path in SOURCE.iterdir()
             if (path.suffix == ".py" or (path / "__init__.py").exists()) and not path.stem.startswith("__")}
    assert {name for pair in named for name in pair if name} == there


def test_every_file_has_its_line_in_the_architecture() -> None:
    tree = next(block for block in markdown.blocks(DOCS / "architecture.md", "") if block.startswith("run.py "))
    paths = markdown.paths(tree)
    assert len(paths) == len(set(paths))
    assert not [path for path in paths if not list(SOURCE.glob(path.rstrip("/")))], "named, but not there"
    sources = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")}
    # a folder's line says what its __init__.py says
    silent = {one for one in sources if not one.endswith("__init__.py") and one not in paths}
    assert not silent, "there, but not named"


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    dead = [link for link in markdown.links(page) if not (page.parent / link).exists()]
    assert not dead


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "docs/trust.md"])
def test_what_is_promised_of_security_is_found_from_where_people_look(name: str) -> None:
    page = ROOT / name
    assert (ROOT / "SECURITY.md").resolve() in {(page.parent / link).resolve() for link in markdown.links(page)}


def test_the_page_on_trust_names_every_place_of_code_and_every_limit() -> None:
    from stilla import errors
    from stilla.recipe import limits
    from tests.recipe.test_code import PLACES

    page = (DOCS / "trust.md").read_text(encoding="utf-8")
    for place in PLACES:
        field = re.sub(r"\[\d+\]", "[]", place).replace("distill[]", "distill").replace("teacher.train.trainer", "trainer")
        assert f"`{field.removesuffix('[]')}" in page, place
    for limit in (limits.SIZE, limits.NODES, limits.DEPTH, limits.TEXT, limits.DIGITS, errors.PROBLEM, errors.SHOWN):
        assert re.search(rf"\b{limit:,}\b", page), limit


@every_page
def test_commands_exist_with_their_options(page: Path) -> None:
    problems = [f"{command}: {problem}" for command in markdown.commands(page)
                if (problem := markdown.problem_of(command))]
    assert not problems


@pytest.mark.parametrize(
    ("command", "said"),
    [("stilla rnu recipe.yaml", "no command rnu"), ("stilla run --recpie x", "recpie"), ("make tset", "no tset"),
     ("stilla run recipes/none.yaml", "no recipes/none.yaml"), ("curl x", "not a program")],
)
def test_a_wrong_command_would_be_found(command: str, said: str) -> None:
    assert said in markdown.problem_of(command)


@every_page
def test_recipes_and_parts_of_recipes_are_right(page: Path) -> None:
    for block in markdown.blocks(page, "yaml"):
        recipe = from_options(_whole(load(block, page.name)))
        for spec in (spec for stage in recipe.distill for spec in stage.objectives or ()):
            assert not objectives.problems(spec)


def _whole(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a recipe in a recipe that is otherwise right."""
    assert set(part) <= set(Recipe.model_fields)
    data = part.get("data", {})
    if isinstance(data, Mapping) and "train" not in data:
        part = {**part, "data": {"train": "reviews.csv", **data}}
    return {**WHOLE, **part}


def test_python_names_exist() -> None:
    unknown = [f"{page.name}: {name}" for page, code in markdown.python_blocks()
               for name in markdown.unknown_names(code)]
    assert not unknown
    assert markdown.unknown_names("import stilla\nstilla.distil()") == ["stilla.distil"]
    assert markdown.unknown_names("from stilla import Distill") == ["stilla.Distill"]


def test_the_section_of_the_example_works() -> None:
    code, *_ = markdown.blocks(DOCS / "adding-a-task.md", "python")
    namespace: dict[str, Any] = {"__name__": "sections"}
    exec(compile(code, "sections.py", "exec", dont_inherit=True), namespace)
    section = namespace["TaggingData"].model_validate({"train": "x.parquet", "tags": "ner_tags"})
    assert (section.tags, section.scheme, section.max_length) == ("ner_tags", "iob", None)


def test_the_objective_of_the_example_works() -> None:
    code, *_ = markdown.blocks(DOCS / "adding-an-objective.md", "python")
    namespace: dict[str, Any] = {"__name__": "focal"}
    exec(compile(code, "focal.py", "exec"), namespace)
    focal = namespace["Focal"]
    logits, labels = torch.tensor([[0.0, 1.0], [3.0, -1.0]]), torch.tensor([1, -100])
    (known, unknown) = Term(focal(gamma=2.0)).objective.losses(logits, Dense(logits), labels, 0.0)
    probability = 1 / (1 + torch.tensor(-1.0).exp())
    torch.testing.assert_close(known, -((1 - probability) ** 2) * probability.log())
    assert unknown == 0
    assert list(options_model(focal).model_fields) == ["gamma"]


def test_the_loss_of_the_example_is_the_divergence() -> None:
    code, *_ = markdown.blocks(DOCS / "language-models.md", "python")
    made: dict[str, Any] = {}
    exec(compile(code, "language-models.md", "exec"), made)
    student = made["student_head"](made["student_hidden"][made["counted"]])
    teacher = made["teacher_hidden"][made["counted"]] @ made["teacher_head"].T
    p, log_q = (teacher / 2).softmax(-1), (student / 2).log_softmax(-1)
    expected = 4 * (p * (p.log() - log_q)).nan_to_num(0).sum(-1).mean()
    torch.testing.assert_close(made["loss"], expected)
    (weights,) = torch.autograd.grad(expected, made["student_head"].weight)
    torch.testing.assert_close(made["student_head"].weight.grad, weights)
