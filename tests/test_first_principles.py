"""The page of examples: both languages run the same code, which prints what stands behind it."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import markdown

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (DOCS / "first-principles.md", DOCS / "first-principles.zh-CN.md")
NUMBER = re.compile(r"[+-]?\d+\.\d+")

both = pytest.mark.parametrize("page", PAGES, ids=["en", "zh"])


@both
def test_every_piece_of_code_has_what_it_prints_behind_it(page: Path) -> None:
    languages = re.findall(r"^```(python|text)\n", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert languages == ["python", "text"] * 7


def test_both_show_the_same_code_and_what_it_prints() -> None:
    english, chinese = PAGES
    assert [_meaning(code) for code in markdown.blocks(english, "python")] == [
        _meaning(code) for code in markdown.blocks(chinese, "python")]
    for language in ("text", "yaml"):
        assert markdown.blocks(english, language) == markdown.blocks(chinese, language)


def test_both_have_the_same_sections_and_numbers() -> None:
    """Translations drift where one of them is put right alone."""
    told = [re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL) for page in PAGES]
    for pattern in (r"^(#+) ", r"\d+\.\d+", r"`([^`]+)`"):
        assert sorted(re.findall(pattern, told[0], re.MULTILINE)) == sorted(re.findall(pattern, told[1], re.MULTILINE))


@pytest.mark.slow
@both
def test_what_the_code_prints_is_on_the_page(page: Path) -> None:
    printed = _printed(tuple(_meaning(code) for code in markdown.blocks(page, "python")))
    for shown, found in zip(markdown.blocks(page, "text"), printed, strict=True):
        assert NUMBER.sub("#", found) == NUMBER.sub("#", shown)
        for ours, theirs in zip(NUMBER.findall(shown), NUMBER.findall(found), strict=True):
            # a unit of the last digit: another machine may round the other way
            assert float(ours) == pytest.approx(float(theirs), abs=1.01 * 10.0 ** -len(ours.partition(".")[2])), shown


def test_the_sum_that_is_no_distance_is_that_of_the_entropies() -> None:
    """By another way than the page's: of the closed form of a binary entropy."""
    from scipy.stats import entropy

    shown = "".join(markdown.blocks(PAGES[0], "text"))
    assert f"H(t) + H(s)               {entropy([0.8, 0.2]) + entropy([0.9, 0.1]):.4f}" in shown
    assert f"KL(t, s) = H(t, s) - H(t) {entropy([0.8, 0.2], [0.9, 0.1]):.4f}" in shown


def _meaning(code: str) -> str:
    """The code without its comments."""
    return ast.unparse(ast.parse(code))


@cache
def _printed(pieces: tuple[str, ...]) -> list[str]:
    """What each piece prints, run one after the other; once for languages whose code is the same."""
    names: dict[str, Any] = {"__name__": "first_principles"}
    before, printed = torch.get_default_dtype(), []
    try:
        for piece in pieces:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(piece, "first-principles.md", "exec"), names)
            printed.append(out.getvalue())
    finally:
        torch.set_default_dtype(before)
    return printed
