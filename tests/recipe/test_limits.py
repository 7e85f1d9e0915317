"""Recipes that attack: too large, too deep, repeated by aliases, of what no recipe is made of; what errors quote of them."""

import json
import os
import time
import tracemalloc

import pytest

from stilla.errors import MESSAGE, PROBLEM, SHOWN, RecipeError, StillaError, all_at_once, short
from stilla.recipe import limits
from stilla.recipe.file import draft, from_options, read, task_in
from stilla.recipe.yaml import load

SMALL = {"task": "text-classification", "data": "reviews.csv", "teacher": "./bert", "student": 3}
TEXT = "{task: text-classification, data: reviews.csv, teacher: ./bert, student: 3}"


def bomb(levels, width=10):
    lines = ["a0: &a0 [" + ", ".join(["x"] * width) + "]"]
    lines += [f"a{n + 1}: &a{n + 1} [" + ", ".join([f"*a{n}"] * width) + "]" for n in range(levels)]
    return "\n".join(lines)


ATTACKS = {
    "a tag": ("a: !mine b", "line 1, column 4: a YAML tag (!...)"),
    "a tag that names code": ("a: !!python/object/apply:os.system [ls]", "a YAML tag"),
    "a set": ("a: !!set {x, y}", "a YAML tag"),
    "an ordered map": ("!!omap [a: 1]", "a YAML tag"),
    "bytes": ("a: !!binary aGVsbG8=", "a YAML tag"),
    "a tag on a key": ("!!int 'a': b", "a YAML tag"),
    "another YAML": ("%YAML 1.1\n---\na: no", "a directive"),
    "other tags": ("%TAG ! tag:x,2000:\n---\na: 1", "a directive"),
    "brackets": ("a: " + "[" * 500, f"more than {limits.DEPTH} deep"),
    "braces": ("{a: " * 500, f"more than {limits.DEPTH} deep"),
    "dashes": ("- " * 500, f"more than {limits.DEPTH} deep"),
    "aliases of aliases": (bomb(9), "keys and values, with what aliases repeat"),
    "aliases as deep as they are long": (bomb(80, 1), f"more than {limits.DEPTH} deep"),
    "a long text a thousand times": ("a: &a '" + "x" * 9999 + "'\nb: [" + "*a, " * 999 + "]", "more than 1,000,000 ch"),
    "an alias within itself": ("a: &a [*a]", "the alias *a stands within what it means"),
    "a document within itself": ("&a {b: {c: *a}}", "the alias *a stands within what it means"),
    "a merge within itself": ("a: &a {<<: *a}", "the alias *a stands within what it means"),
    "many values": ("a: [" + "1," * (limits.NODES + 1) + "]", "more than 50,000 keys and values"),
    "many digits": ("a: " + "9" * 400, "a number of 400 characters"),
    "too many digits for Python": ("a: " + "9" * 5000, "a number of 5,000 characters"),
    "many hexadecimal digits": ("a: 0x" + "f" * 400, "a number of 402 characters"),
    "a long file": ("a: " + "x" * limits.SIZE, "1,000,003 characters; a recipe has at most 1,000,000"),
    "a list as a key": ("[a]: b", "a list, mapping or alias as a key"),
    "a mapping as a key": ("? {a: b}\n: c", "a list, mapping or alias as a key"),
    "an alias as a key": ("a: &a x\n*a : b", "line 2, column 1: a list, mapping or alias as a key"),
    "null as a key": ("null: b", "a key that is nothing"),
    "nothing as a key": (": b", "a key that is nothing"),
    "a key twice": ("a: 1\nb: 2\na: 3", "line 3, column 1: the key a is there twice, first in line 1"),
    "a key twice in two words": ("{1: a, true: c}", "the key True is there twice"),
    "a key twice within": ("x:\n  a: 1\n  'a': 2", "line 3, column 3: the key a is there twice, first in line 2"),
    "a character beyond Unicode": ('a: "\\UFFFFFFFF"', "cannot be read as YAML"),
    "a merge of a number": ("a: {<<: 3}", "merging"),
    "a date that is none": ("a: 2024-13-45", "cannot be read as YAML"),
    "a control character": ("a: \x00", "cannot be read as YAML"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("text", "said"), ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_refused_in_few_words_and_little_time(tmp_path, text, said):
    (tmp_path / "recipe.yaml").write_text(text)
    begun = time.process_time()
    with pytest.raises(RecipeError) as caught:
        read(tmp_path / "recipe.yaml")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 700
    assert time.process_time() - begun < 15  # fifty thousand values take three, in Python


@pytest.mark.parametrize("name", ["brackets", "aliases of aliases", "aliases as deep as they are long",
                                  "a long text a thousand times", "an alias within itself"])
def test_an_attack_takes_little_memory(name):
    tracemalloc.start()
    with pytest.raises(RecipeError):
        load(ATTACKS[name][0], "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_what_is_within_the_limits_is_read():
    assert load("%YAML 1.2\n---\na: 1", "x") == {"a": 1}
    assert load("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a", "x") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1}}
    assert load("{0: a, '1.5': b, true: c}", "x") == {0: "a", "1.5": "b", True: "c"}
    deep = "a: " + "[" * (limits.DEPTH - 1) + "]" * (limits.DEPTH - 1)
    assert load(deep, "x")
    assert load(bomb(3), "x")
    labels = [f"the label number {number}" for number in range(1000)]
    assert list(from_options({**SMALL, "data": {"train": "x", "labels": labels}}).data.labels) == labels


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"x": float("nan")}, "student.config.x: got NaN; expected a finite number"),
        ({"x": [1.0, float("-inf")]}, "student.config.x[1]: got -Infinity; expected a finite number"),
        ({"x": 10**400}, "student.config.x: a whole number that is too large"),
        ({"x": {True: 1}}, "student.config.x[True]: a key has to be a word"),
        ({"x": {1.5: 1}}, "student.config.x.1.5: a key has to be a word"),
        ({"x": {None: 1}}, "student.config.x.None: a key has to be a word"),
        ({"x": "\x00"}, "student.config.x: got a text with the character '\\x00', which no text has"),
        ({"x": "\ud800"}, "student.config.x: got a text with the character '\\ud800', which no text has"),
        ({"x": "x" * 20_001}, "student.config.x: a text of 20,001 characters; expected at most 20,000"),
        ({"x": b"x"}, "student.config.x: got bytes; expected text"),
    ],
)
def test_values_that_no_recipe_has_are_refused_wherever_they_stand(config, said):
    with pytest.raises(RecipeError) as caught:
        from_options({**SMALL, "student": {"config": config}})
    assert str(caught.value).startswith(f"recipe: {said}")
    for place in ("objectives", "trainer"):
        stage = {"objectives": [{"kind": "labels", **config}]} if place == "objectives" else {"trainer": config}
        with pytest.raises(RecipeError, match=f"distill.{place}"):
            from_options({**SMALL, "distill": stage})


def test_a_date_is_text_only_in_quotes(tmp_path):
    (tmp_path / "x.yaml").write_text(TEXT.replace("reviews.csv", "{train: x, revision: 2024-01-02}"))
    with pytest.raises(RecipeError, match=r"data\.revision: got the date 2024-01-02; put quotes around it"):
        read(tmp_path / "x.yaml")


def test_options_that_hold_themselves_are_refused():
    inside: dict = {}
    inside["again"] = inside
    with pytest.raises(RecipeError, match="more than 50 lists and mappings within each other"):
        from_options({**SMALL, "student": {"config": inside}})
    shared: list = [1]
    for _ in range(40):
        shared = [shared, shared]
    with pytest.raises(RecipeError, match="more than 50,000 keys and values"):
        from_options({**SMALL, "data": {"train": "x", "labels": shared}})
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(RecipeError, match="more than 50 lists and mappings within each other"):
        from_options({**SMALL, "data": {"train": "x", "labels": deep}})


@pytest.mark.parametrize("text", ["exprot:", "exprot: null", "{exprot: ~}"])
def test_an_unknown_key_is_refused_though_nothing_stands_behind_it(tmp_path, text):
    body = TEXT[1:-1].replace(", ", "\n") + "\n" if "{" not in text else TEXT[:-1] + ", " + text[1:]
    (tmp_path / "x.yaml").write_text(body + text if "{" not in text else body)
    with pytest.raises(RecipeError, match=r"exprot: unknown key\. Did you mean export\?"):
        read(tmp_path / "x.yaml")


@pytest.mark.slow
def test_one_among_thousands_of_mistakes_is_not_looked_for(tmp_path):
    (tmp_path / "x.yaml").write_text(TEXT[:-1] + ", " + ", ".join(f"k{n}: 1" for n in range(5000)) + "}")
    begun = time.process_time()
    with pytest.raises(RecipeError) as caught:
        read(tmp_path / "x.yaml")
    assert time.process_time() - begun < 20
    assert str(caught.value).startswith("50 problems:\n  1. x.yaml: k0: unknown key")
    assert "problems more" in str(caught.value)
    assert len(draft(tmp_path / "x.yaml").problems) == SHOWN


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"x" * 3_000_000: 1}, {"task": "x" * 3_000_000}, {"task": "x" * 9000}, {"seed": "x" * 3_000_000},
     {"seed": ["x" * 300] * 9999}, {"data": {"train": "x", "y" * 3_000_000: 1}},
     {"distill": {"objectives": [{"kind": "labels", "weight": "x" * 3_000_000}]}},
     {"distill": {"objectives": [{"kind": "labels", "weight": {"steps": [[n, 1] for n in range(99999)]}}]}},
     {"distill": {"objectives": [{"kind": "labels", "weight": {"z" * 3_000_000: 1}}]}},
     {"cache": {"form": "top_k", "temperatures": [-1.0] * 9999}}],
    ids=range(10),
)  # fmt: skip
def test_errors_are_short_whatever_they_quote(options):
    """Only what is wrong and what to do are to be read, not what was given."""
    try:
        said = str(StillaError("\n".join(draft_problems({**SMALL, **options}))))
    except StillaError as error:
        said = str(error)
    assert len(said) < 500


def draft_problems(options):
    from stilla.check import unknown_names
    from stilla.recipe.file import draft_of_options

    made = draft_of_options(options)
    return [*made.problems, *(unknown_names(made.recipe) if made.recipe else [])]


@pytest.mark.slow
def test_a_long_message_keeps_its_beginning_and_its_end():
    text = short("what is wrong " + "x" * 10_000 + " what to do", 200)
    assert text.startswith("what is wrong xx")
    assert text.endswith("xx what to do")
    assert "[... 9,825 characters ...]" in text
    assert len(text) == 200
    assert short("x" * 200, 200) == "x" * 200
    assert len(str(StillaError("x" * 10**7))) < MESSAGE + 100


def test_of_very_many_problems_the_first_are_shown_and_the_others_counted():
    error = all_at_once([f"{number}: {'x' * 2000}" for number in range(500)], RecipeError)
    lines = str(error).splitlines()
    assert lines[0] == "500 problems:"
    assert lines[SHOWN].startswith("  50. 49: xx")
    assert lines[-1] == "  ... and 450 more"
    assert max(map(len, lines)) < PROBLEM + 60
    assert len(error.problems) == 500


def test_only_a_regular_file_of_a_recipes_size_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, said in ((tmp_path / "pipe.yaml", "is no regular file"), ("/dev/zero", "is no regular file"),
                       ("x" * 300, "file systems take names of up to 255"), ("x\0y", "cannot|no file")):
        with pytest.raises(RecipeError, match=said):
            read(name)
        assert task_in(name) is None
    (tmp_path / "large.yaml").write_bytes(b"#" * (4 * limits.SIZE + 1))
    with pytest.raises(RecipeError, match="more than 4,000,000 bytes"):
        read(tmp_path / "large.yaml")


def test_a_shell_may_hand_a_recipe_over():
    read_end, write_end = os.pipe()
    os.write(write_end, TEXT.encode())
    os.close(write_end)
    assert read(f"/dev/fd/{read_end}").task == "text-classification"
    os.close(read_end)


def test_long_paths_are_no_fault(tmp_path):
    for name in ("x" * 200 + ".csv", "./" + "y/" * 1500):
        (tmp_path / "x.yaml").write_text(TEXT.replace("reviews.csv", json.dumps(name)))
        assert read(tmp_path / "x.yaml").data.train == name
