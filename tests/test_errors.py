import inspect

import pytest

from stilla import errors
from stilla.errors import (
    RecipeError,
    StillaError,
    all_at_once,
    counted,
    did_you_mean,
    one_of,
    plural,
    singular,
    visible,
)


def test_every_error_can_be_caught_as_one():
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert len(kinds) > 5
    assert all(issubclass(kind, StillaError) for kind in kinds)


@pytest.mark.parametrize(
    ("word", "said"),
    [("epoch", " Did you mean epochs?"), ("size", " Did you mean batch_size?"), ("zzz", ""), ("b", ""), (3, "")],
)
def test_a_near_word_is_suggested_and_a_far_one_is_not(word, said):
    assert did_you_mean(word, ["epochs", "batch_size"]) == said


@pytest.mark.parametrize(
    ("names", "said"), [(["a", "b", "c"], "a, b or c"), (["a", "b"], "a or b"), (["a"], "a"), ([], "")]
)
def test_what_is_allowed_reads_as_a_sentence(names, said):
    assert one_of(names) == said


@pytest.mark.parametrize(("number", "what", "does", "said"), [
    (1, "example", "wins", "1 example wins"), (0, "example", "wins", "0 examples win"), (2, "query", "is", "2 queries are"),
    (1, "query", "", "1 query"), (1200, "class", "has", "1,200 classes have"), (2, "key", "loses", "2 keys lose")])
def test_a_number_agrees_with_what_it_counts_and_what_that_does(number, what, does, said):
    assert counted(number, what, does) == said


@pytest.mark.parametrize("what", ["examples", "words", "questions", "queries", "pixels", "tokens", "classes"])
def test_one_of_several_is_called_as_several_of_it_are(what):
    assert plural(singular(what)) == what
    assert singular(what) != what


def test_several_problems_become_one_numbered_error():
    error = all_at_once(["no teacher", "no data"], RecipeError)
    assert isinstance(error, RecipeError)
    assert str(error) == "2 problems:\n  1. no teacher\n  2. no data"
    assert str(all_at_once(["no teacher"], RecipeError)) == "no teacher"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[31mred\x07", r"\x1b[31mred\x07"), ("a\rb", r"a\rb"), ("a\n\tb", "a\n\tb"), ("\x9b2J", r"\x9b2J"),
     ("user\u202eresu", r"user\u202eresu"), ("\ud800", r"\ud800"), ("größe 名 🙂", "größe 名 🙂")],
)  # fmt: skip
def test_what_a_terminal_would_obey_is_written_out(text, shown):
    assert visible(text) == shown


def test_an_error_never_holds_control_characters():
    error = all_at_once(["a label \x1b]0;title\x07", "another"], RecipeError)
    assert "\x1b" not in str(error)
    assert r"\x1b]0;title\x07" in str(error)
    assert error.problems[0] == r"a label \x1b]0;title\x07"
