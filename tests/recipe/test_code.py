"""The one list of what in a recipe is code."""

import re
from collections.abc import Iterator

import pytest

from stilla.errors import RecipeError, TrustError
from stilla.recipe import Recipe, Section
from stilla.recipe.code import Code, code_in, in_words, untrusted
from stilla.recipe.file import draft_of_options, from_options, read
from stilla.recipe.kinds import KINDS, sections
from stilla.runtime.imports import import_path
from tests.recipe.test_bounds import inner_sections

SMALL = {"task": "text-classification", "data": "reviews.csv", "teacher": "./bert", "student": 3}
WITH_CODE = {
    "task": "evil:Task",
    "data": {"train": "x.csv", "unlabelled": {"examples": "y.txt", "keep": "evil:wanted"}},
    "teacher": {"model": "evil:teacher", "trust_remote_code": True, "train": {"trainer": {"deepspeed": "zero.json"}}},
    "student": {"model": "evil:student", "trust_remote_code": True},
    "distill": [{"objectives": [{"kind": "labels"}, {"kind": "evil:Objective"}]}, {"objectives": [{"kind": "evil:Other"}]}],
    "personal": {"by": "segment", "objectives": [{"kind": "evil:Mine"}], "trainer": {"deepspeed": "two.json"}},
    "completions": {"by": "teacher", "keep": "evil:keep"},
    "evaluate": {"generation": {"metrics": ["bleu", "evil:metric"]}},
}
PLACES = ["task", "data.unlabelled.keep", "teacher.model", "teacher.trust_remote_code", "student.model",
          "student.trust_remote_code", "teacher.train.trainer.deepspeed", "distill[0].objectives[1].kind",
          "distill[1].objectives[0].kind", "personal.trainer.deepspeed", "personal.objectives[0].kind", "completions.keep",
          "evaluate.generation.metrics[1]"]


def test_every_place_is_found():
    assert [one.place for one in code_in(WITH_CODE)] == PLACES
    assert {one.what for one in code_in(WITH_CODE)} == {
        "evil:Task", "evil:teacher", "evil:student", "evil:Objective", "evil:Other", "evil:Mine", "evil:keep", "evil:metric",
        "evil:wanted", "code that comes with evil:teacher", "code that comes with evil:student", "what zero.json names",
        "what two.json names"}


def test_a_recipe_without_code_has_none():
    assert code_in(from_options({**SMALL, "distill": {"objectives": [{"kind": "logits", "temperature": 2.0}]}})) == ()
    assert code_in({}) == ()
    assert code_in({"task": 7, "teacher": ["x"], "student": None, "distill": "x", "evaluate": {"generation": 3}}) == ()
    assert code_in({**SMALL, "teacher": "C:/models/bert", "data": "s3://x/y"}) == ()


@pytest.mark.parametrize(
    ("change", "place"),
    [({"teacher": "evil:f"}, "teacher.model"), ({"student": "evil.a:f"}, "student.model"),
     ({"distill": {"objectives": {"kind": "evil:X"}}}, "distill.objectives[0].kind"),
     ({"completions": {"by": "teacher", "keep": "os"}}, "completions.keep"),
     ({"evaluate": {"generation": {"metrics": "evil:f"}}}, "evaluate.generation.metrics[0]"),
     ({"teacher": {"model": "x", "trust_remote_code": "yes"}}, "teacher.trust_remote_code"),
     ({"task": ":evil"}, "task")],
)  # fmt: skip
def test_code_is_found_in_short_and_in_wrong_forms(change, place):
    assert [one.place for one in code_in({**SMALL, **change})] == [place]


def said_to_be_code(section: type[Section], place: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        here = f"{place}.{name}".removeprefix(".")
        if ("package.module:" in (field.description or "") and name != "weights") or name == "trust_remote_code":
            yield here
        for inner in inner_sections(field.annotation):
            yield from said_to_be_code(inner, here)


def test_no_field_takes_code_that_is_not_in_the_list():
    """Fields say in their words that they take an import path."""
    found = {"task", *said_to_be_code(Recipe)}
    for task in KINDS:
        for place in ("data", "evaluate"):
            found |= set(said_to_be_code(sections(task).at(place), place))
    listed = {place.split("[")[0] + (".kind" if place.endswith(".kind") else "") for place in PLACES}
    listed = {re.sub(r"^(distill|personal)\.kind", r"\1.objectives.kind", place) for place in listed}
    assert found == listed - {"teacher.train.trainer.deepspeed", "personal.trainer.deepspeed"}


def test_code_is_known_by_what_it_is_wherever_it_stands():
    mine = code_in({**SMALL, "distill": {"objectives": [{"kind": "evil:Objective"}]}})
    left = untrusted(WITH_CODE, mine)
    assert Code("distill[0].objectives[1].kind", "evil:Objective") not in left
    assert len(left) == len(PLACES) - 1


def test_many_places_are_said_in_few_words():
    code = tuple(Code(f"place {number}", "x" * 10_000) for number in range(500))
    assert in_words(code).endswith(" and 490 more")
    assert len(in_words(code)) < 2000
    assert in_words(code[:1]).startswith("place 0: xxx")


def test_a_file_with_code_is_read_only_by_who_trusts_it(tmp_path, evil):
    file = tmp_path / "recipe.yaml"
    file.write_text("{task: 'evil:Task', data: x.csv, teacher: ./t, student: 3}")
    with pytest.raises(TrustError, match=r"recipe\.yaml names code that would run here: task: evil:Task"):
        read(file, trusted=())
    assert not evil()
    with pytest.raises(TrustError):
        read(file, trusted=(Code("task", "other:Task"),))
    assert not evil()
    read_by_its_owner = draft_of_options({"task": "evil:Task", "data": "x.csv", "teacher": "./t", "student": 3})
    assert evil(), "else this test could not fail"
    assert read_by_its_owner.recipe is not None


@pytest.mark.parametrize("path", ["evil", "evil:", ":Task", "evil:a.b", "evil;x:y", "./evil:Task", "evil:a b"])
def test_what_is_no_import_path_is_not_imported(path, evil):
    with pytest.raises(RecipeError, match="is no import path; expected package"):
        import_path(path)
    assert not evil()


@pytest.mark.parametrize(
    ("path", "values", "what"),
    [("student.model", ["./small", "evil:f"], "evil:f"),
     ("distill.objectives", [[{"kind": "labels"}], [{"kind": "evil:X"}]], "evil:X"),
     ("teacher.trust_remote_code", [False, True], "code that comes with ./bert"),
     ("task", ["text-classification", "evil:Task"], "evil:Task")],
)  # fmt: skip
def test_code_is_found_among_the_values_of_a_search(path, values, what):
    found = code_in({**SMALL, "search": {"over": {path: values, "distill.epochs": {"low": 1, "high": 3}}}})
    assert found == (Code(f"search.over.{path}[1]", what),)
