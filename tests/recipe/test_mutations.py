"""Recipes and overrides changed at random: each is a recipe or is refused, in bounded time, memory and text."""

import copy
import json
import random
import resource
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from stilla.errors import MESSAGE, StillaError
from stilla.recipe import Recipe
from stilla.recipe.code import code_in
from stilla.recipe.file import draft, draft_of_options
from stilla.recipe.kinds import KINDS
from stilla.recipe.written import brief, dump
from stilla.recipe.yaml import flow, load

ROOT = Path(__file__).parents[2]
VALID = {file.name: file.read_text(encoding="utf-8") for file in sorted((ROOT / "recipes").glob("*.yaml"))}
SECONDS = 20.0
"""Of the processor; a recipe takes a few hundredths, and the largest that is looked at a few seconds."""
GIGABYTES = 1.0
"""By which the process may grow over all of them."""

STRANGE = [
    "", "~", "null", "no", "true", "-0.5", "1e30", "1e400", "-1e400", ".nan", ".inf", "-.inf", "0x1F", "0o17", "1_000",
    "9" * 50, "9" * 400, "9" * 5000, "2024-01-01", "2024-13-45", "12:30:45", "!!python/name:os.system", "!x y",
    "!!set {a}", "&a [*a]", "*a", "&b x", "<<: *b", "? [a]\n: b", "? ", ": x", "- x", "[[[[", "]]]]", "{{{{", "}", '"', "'",
    "|", ">", "%", "@", "`", "\t", "---", "...", "%YAML 1.1", "\x00", "\x07", "\x1b[2J", "\ufeff", "\u202e", "é", "日本語",
    "🦀", "\\", "a: b: c", "stilla:nothing", "no.such.module:f", ":", "a:", ":a", "C:\\x", "x" * 300, "[" * 600,
    "{a: " * 600, "- " * 600, "linear: [1, 0]", "{steps: [[0, 1], [0.5]]}", "{linear: [1]}", "[1, [2, [3]]]",
    "{1: {2: {3: x}}}", "{null: x}", "{true: 1, 1: 2}", "!!binary aGk=", "\"\\uD800\"", "\"\\0\"", "\"\\UFFFFFFFF\"", "#",
    "x #y", "$(reboot)", "../../etc/passwd",
]  # fmt: skip
"""What is put in place of something, or beside it."""
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(10**400), 0.0, -0.5, 0.5, 1e-300, 1e30, 1e308,
    float("nan"), float("inf"), float("-inf"), "", "x", "auto", "x" * 20_000, "x" * 200_000, "\x00", "\ud800", "日本語",
    "\u202e", "a:b", "stilla:nothing", [], [[]], [[[[]]]], ["x"] * 3000, {}, {"": ""}, {"x": {"x": {}}}, {1: 2}, {None: 1},
    {True: 1}, {1.5: 1}, {"linear": [1, 0]}, {"steps": [[0, 1]]}, {"kind": "labels"}, b"x", ("a", "b"), [None],
    [1, "a", None, 2.5, {}],
]  # fmt: skip


@cache
def valid(name: str) -> Any:
    """The plain values of a recipe as it comes along; `changed` copies them."""
    return load(VALID[name], name)


def broken_texts(draw: random.Random) -> Iterator[tuple[str, str]]:
    """Without an end: a name for what was done, and a recipe's text after it."""
    while True:
        name = draw.choice(list(VALID))
        text = VALID[name]
        for _ in range(draw.choice([1, 1, 1, 2, 3, 8])):
            text = draw.choice(CHANGES)(text, draw)
        yield name, text


def replaced_character(text: str, draw: random.Random) -> str:
    at = draw.randrange(len(text) + 1)
    return text[:at] + draw.choice("[]{}:,-&*!|>'\"%@`#?\t\n \\\x00\x1b09.eéÿ\u2028\ud7ff") + text[at + draw.randrange(2):]


def removed_piece(text: str, draw: random.Random) -> str:
    at = draw.randrange(len(text) + 1)
    return text[:at] + text[at + draw.choice([1, 2, 5, 20, 200]):]


def put_in(text: str, draw: random.Random) -> str:
    at = draw.randrange(len(text) + 1)
    return text[:at] + draw.choice(STRANGE) + text[at:]


def other_value(text: str, draw: random.Random) -> str:
    lines = text.splitlines()
    if not lines:
        return draw.choice(STRANGE)
    at = draw.randrange(len(lines))
    key, colon, _ = lines[at].partition(":")
    lines[at] = f"{key}{colon or ':'} {draw.choice(STRANGE)}"
    return "\n".join(lines)


def moved_line(text: str, draw: random.Random) -> str:
    lines = text.splitlines() or [""]
    line = lines.pop(draw.randrange(len(lines)))
    for _ in range(draw.choice([0, 1, 2, 50])):
        indented = " " * draw.choice([0, 0, 2, 3, 7]) + line.strip()
        lines.insert(draw.randrange(len(lines) + 1), draw.choice([line, indented]))
    return "\n".join(lines)


def aliased(text: str, draw: random.Random) -> str:
    levels, width = draw.choice([(2, 3), (9, 9), (60, 1), (3, 100)])
    lines = [f"z0: &z0 [{', '.join(['x'] * width)}]"]
    lines += [f"z{n}: &z{n} [{', '.join([f'*z{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join([text, *lines]) if draw.random() < 0.5 else "\n".join([*lines, text])


def nested(text: str, draw: random.Random) -> str:
    depth = draw.choice([5, 49, 51, 500, 5000])
    opened, closed = draw.choice([("[", "]"), ("{a: ", "}")])
    return other_value(text, random.Random(draw.random())) + f"\nz: {opened * depth}{closed * draw.choice([0, depth])}"


def long_(text: str, draw: random.Random) -> str:
    return put_in(text, draw) + draw.choice(["x" * 20_000, "# " + "y" * 20_000, "\n" * 9000, "\nw: [" + "1," * 999 + "]",
                                            "".join(f"\nkey{n}: {n}" for n in range(99))])


def values_changed(text: str, draw: random.Random) -> str:
    """The recipe's plain values with some of them others, written out again where they can be."""
    try:
        return json.dumps(changed(load(text, "x"), draw), default=str)
    except (StillaError, ValueError, TypeError, RecursionError):
        return text


CHANGES = [replaced_character, removed_piece, put_in, other_value, other_value, moved_line, aliased, nested, long_,
           values_changed]


def changed(plain: Any, draw: random.Random) -> Any:
    """Plain values, one of which is another, is gone, or is there under a strange key."""
    plain = copy.deepcopy(plain)
    places = list(every_place(plain))
    if not places:
        return draw.choice(VALUES)
    node, key = draw.choice(places)
    what = draw.random()
    if what < 0.6:
        node[key] = copy.deepcopy(draw.choice(VALUES))
    elif what < 0.75:
        del node[key]
    elif what < 0.9 and isinstance(node, dict):
        node[draw.choice(["x", "", 7, "weight", "kind", "trust_remote_code", "é" * 50, "layers"])] = draw.choice(VALUES)
    else:
        node[key] = [copy.deepcopy(node[key])] * draw.choice([1, 2, 500])
    return plain


def every_place(plain: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(plain, dict | list):
        for key in list(plain) if isinstance(plain, dict) else range(len(plain)):
            yield plain, key
            yield from every_place(plain[key])


KEYS = [
    "distill.epochs", "distill", "data", "data.train", "student.layers", "student.layers.keep", "teacher.train.epochs",
    "distill.objectives.0.weight", "distill.objectives[1].temperature", "distill.objectives", "seed", "task", "output",
    "distill.trainer.save_steps", "evaluate.seeds", "cache.temperatures", "completions", "export", "exprot",
    "a" + ".a" * 60, "x" * 50_000, "distill.0.0.0", "distill.99999999999999999999", "distill.²", "distill.٣", "", ".",
    "a..b", "0", "0.0", "-1", "data.labels.5", "teacher.model.x.y",
]  # fmt: skip


def overrides(draw: random.Random) -> list[str]:
    made = []
    for _ in range(draw.choice([1, 1, 2, 5])):
        key = draw.choice(KEYS)
        if draw.random() < 0.1:
            key = replaced_character(key, draw)
        made.append(f"{key}{draw.choice(['=', '=', '=', '=', '', ' = ', '=='])}{draw.choice(STRANGE)}")
    return made


def looked_at(made: Any) -> str:
    """What came of it: a recipe that can be written out, or problems in few words."""
    said = "\n".join(made.problems)
    assert len(said) < MESSAGE, len(said)
    assert max(map(len, made.problems), default=0) < 800
    said.encode()
    if made.recipe is not None:
        assert isinstance(made.recipe, Recipe)
        code_in(made.recipe)
        if not made.problems:
            for written in (dump(made.recipe), brief(made.recipe)):
                again = Recipe.model_validate(load(written, "x"))
                assert again == made.recipe or made.recipe.task not in KINDS  # whose fields nobody knows
            json.dumps(made.recipe.model_dump(mode="json"), allow_nan=False)
            return "a recipe"
    return "refused"


def refused(error: StillaError) -> str:
    assert len(str(error)) < MESSAGE + 100
    return "refused"


def survived(number: int, seed: int, tmp_path: Path) -> dict[str, int]:
    """How often what came of `number` changed recipes and overrides."""
    draw = random.Random(seed)
    texts = broken_texts(draw)
    ends = {"a recipe": 0, "refused": 0}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = tmp_path / "mutated.yaml"
    for one in range(number):
        _, text = next(texts)
        given = overrides(draw) if one % 3 == 0 else []
        if one % 3 == 0 and draw.random() < 0.7:
            text = draw.choice(list(VALID.values()))
        begun = time.process_time()
        try:
            if one % 5 == 4:
                plain = changed(valid(draw.choice(list(VALID))), draw)
                end = looked_at(draft_of_options(plain if isinstance(plain, dict) else {"x": plain}, given))
            else:
                file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
                end = looked_at(draft(file, given))
        except StillaError as error:
            end = refused(error)
        except BaseException as error:
            error.add_note(f"seed {seed}, number {one}: {given} {text[:3000]!r}")
            raise
        assert time.process_time() - begun < SECONDS, (seed, one, given, text[:3000])
        ends[end] += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert grown < GIGABYTES
    return ends


@pytest.mark.slow
def test_hundreds_of_changed_recipes_are_recipes_or_refused(tmp_path):
    ends = survived(300, 0, tmp_path)
    assert ends["refused"] > 100
    assert ends["a recipe"] > 10, "else only the first look at them is tried"
    assert "evil" not in sys.modules


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_ten_times_a_thousand_changed_recipes_are_recipes_or_refused(tmp_path, seed):
    ends = survived(1000, seed, tmp_path)
    assert sum(ends.values()) == 1000
    assert ends["a recipe"] > 50


@pytest.mark.slow
def test_every_strange_value_in_every_place_of_a_recipe(tmp_path):
    """Not at random: each of the values as an override of each kind of place."""
    text = VALID["plain-kd.yaml"]
    (tmp_path / "x.yaml").write_text(text)
    places = ["distill.epochs", "distill.objectives.0.weight", "student.config.x"]
    for place in places:
        for value in STRANGE:
            try:
                looked_at(draft(tmp_path / "x.yaml", [f"{place}={value}"]))
            except StillaError as error:
                refused(error)


def test_a_change_is_a_change_and_the_same_one_by_its_seed():
    made = [next(broken_texts(random.Random(seed)))[1] for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    assert flow({"a": 1}) == "{a: 1}"
