"""The documentation says what the code does: its lists, links, commands, recipes and programs."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertForTokenClassification

from stilla import objectives, tasks
from stilla.errors import DataError
from stilla.evaluate import Asked, Examined, examine, make_scores
from stilla.objectives import KINDS as OBJECTIVES
from stilla.objectives.base import Term, options_model
from stilla.recipe import ModelSource, Recipe
from stilla.recipe.file import from_options
from stilla.recipe.kinds import KINDS as TASKS
from stilla.recipe.yaml import load
from stilla.scores import Cost
from stilla.signals import Dense, Side
from tests import markdown, tables, tiny

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "stilla"
WHOLE = {"task": "text-classification", "data": "reviews.csv", "teacher": "./bert", "student": 3}

every_page = pytest.mark.parametrize("page", markdown.PAGES, ids=lambda page: page.name)


@pytest.mark.slow
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
    assert {"formats", "metrics", "families", "floors", "offered"} <= found


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
        field = re.sub(r"\[\d+\]", "[]", place).replace("distill[]", "distill")
        field = re.sub(r"^(teacher\.train|personal)\.trainer", "trainer", field)
        assert f"`{field.removesuffix('[]')}" in page, place
    for limit in (limits.SIZE, limits.NODES, limits.DEPTH, limits.TEXT, limits.DIGITS, errors.PROBLEM, errors.SHOWN):
        assert re.search(rf"\b{limit:,}\b", page), limit


@pytest.mark.slow
@every_page
def test_commands_exist_with_their_options(page: Path) -> None:
    problems = [f"{command}: {problem}" for command in markdown.commands(page)
                if (problem := markdown.problem_of(command))]
    assert not problems


@pytest.mark.parametrize(
    ("command", "said"),
    [("stilla rnu recipe.yaml", "no command rnu"), ("torchrun --nporc 2 -m stilla run x", "torchrun does not take"),
     ("accelerate launch --multi-gpus -m stilla run x", "accelerate does not take"),
     ("torchrun --nproc_per_node 2 -m stilla rnu x", "no command rnu"), ("stilla run --recpie x", "recpie"),
     ("make tset", "no tset"),
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
    if isinstance(data, Mapping) and not {"train", "parts"} & set(data):
        part = {**part, "data": {"train": "reviews.csv", **data}}
    return {**WHOLE, **part}


def test_python_names_exist() -> None:
    unknown = [f"{page.name}: {name}" for page, code in markdown.python_blocks()
               for name in markdown.unknown_names(code)]
    assert not unknown
    assert markdown.unknown_names("import stilla\nstilla.distil()") == ["stilla.distil"]
    assert markdown.unknown_names("from stilla import Distill") == ["stilla.Distill"]


@pytest.mark.slow
def test_the_section_of_the_example_works() -> None:
    code, *_ = markdown.blocks(DOCS / "adding-a-task.md", "python")
    namespace: dict[str, Any] = {"__name__": "sections"}
    exec(compile(code, "sections.py", "exec", dont_inherit=True), namespace)
    section = namespace["TaggingData"].model_validate({"train": "x.parquet", "tags": "ner_tags"})
    assert (section.words, section.tags, section.max_length) == ("words", "ner_tags", None)


TAGS = ("MUSIC", "O", "FOOD")
"""In another order than the data's."""
SENTENCES = {"words": [["good", "bread"], ["the", "old", "song", "of", "salt"], ["drum"], ["a", "very", "new", "flute"]],
             "tags": [["O", "FOOD"], ["O", "O", "MUSIC", "O", "FOOD"], ["MUSIC"], ["O", "O", "O", "MUSIC"]]}


@pytest.fixture
def tagging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the example."""
    section, task = (code for code in markdown.blocks(DOCS / "adding-a-task.md", "python") if "\nclass Tag" in code)
    (tmp_path / "my_tags.py").write_text(f"{section}\n\n{task}", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("my_tags")
    del sys.modules["my_tags"]


def _tagger(folder: Path, seed: int) -> ModelSource:
    torch.manual_seed(seed)
    tokenizer = tiny.tokenizer()
    model = BertForTokenClassification(BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, id2label=dict(enumerate(TAGS)), label2id={tag: index for index, tag in enumerate(TAGS)},
        initializer_range=1.0))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelSource(model=str(folder))


@pytest.mark.slow
def test_the_task_of_the_example_works(tagging: Any, tmp_path: Path) -> None:
    split = Dataset.from_dict(SENTENCES)
    section = from_options({**WHOLE, "task": "my_tags:Tagging", "data": {"train": "x", "max_length": 6}}).data
    task = tasks.find("my_tags:Tagging").understand(section, {"train": split})
    teacher, student = (task.load(_tagger(tmp_path / str(seed), seed), labelled=True) for seed in (0, 1))
    task = task.adapted_to(teacher)
    assert task.class_names() == TAGS
    data = task.prepare(split, student.processor, teacher.processor, training=False)
    batch = data.collate([0, 1, 2, 3])
    assert set(task.counts(batch)) == set(task.counted)
    assert task.counts(batch)["rows"] == len(task.signals(student.model(**batch.student), batch, Side.STUDENT).logits) == 11
    assert [piece.rows.stop for piece in task.segments(batch)] == [2, 6, 7, 11]  # six tokens are four words

    asked = {"teacher": Asked(teacher.model, Side.TEACHER), "student": Asked(student.model)}
    answers = examine(task.exam(), asked, data, batch_size=3)
    right = 0
    for key, (words, tags) in enumerate(zip(SENTENCES["words"], SENTENCES["tags"])):
        inputs = student.processor([words], is_split_into_words=True, truncation=True, max_length=6, return_tensors="pt")
        alone = student.model(**inputs).logits[0, 1:-1]
        torch.testing.assert_close(torch.from_numpy(answers["student"].given[key]), alone, rtol=1e-4, atol=1e-5)
        right += sum(TAGS[said] == tag for said, tag in zip(alone.argmax(-1).tolist(), tags))
    found = make_scores(task.kind, {"test": split}, [Examined(task.exam(), {name: {"test": [one]} for name, one in
                        answers.items()})], dict.fromkeys(answers, Cost(1, 4)), resamples=20)
    assert found.student["word_accuracy"] == pytest.approx(right / 11)
    assert (found.units, found.decided) == ("words", 11)
    flips = answers["student"].given[1].argmax(-1) != answers["teacher"].given[1].argmax(-1)
    assert flips.any()
    view = task.exam().view(split, answers, 1, 2)
    assert [(view.text[mark.start : mark.end], mark.label) for mark in view.marks] == [("song", "MUSIC"), ("song", "?")]


def test_the_task_of_the_example_names_every_problem_of_the_data(tagging: Any) -> None:
    odd = {"words": [["good"], [], None], "tags": [["O", "O"], [], ["O"]]}
    with pytest.raises(DataError) as caught:
        tagging.Tagging.understand(tagging.TaggingData(train="x"), {"train": Dataset.from_dict(odd)})
    assert [problem.partition(": ")[2] for problem in caught.value.problems] == [
        "example 0 has 1 words and 2 tags", "example 1 has 0 words and 0 tags", "example 2 has 0 words and 1 tags"]
    with pytest.raises(DataError, match="there is no column 'tags'"):
        tagging.Tagging.understand(tagging.TaggingData(train="x"), {"train": Dataset.from_dict({"words": [["good"]]})})


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
