"""Both READMEs say the same, and what they say about the repository is true."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests import markdown

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"

both = pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=["en", "zh"])


@pytest.mark.parametrize("language", ["sh", "yaml", "python"])
def test_both_show_the_same_code(language: str) -> None:
    english, chinese = ([markdown.uncommented(code) for code in markdown.blocks(page, language)]
                        for page in (ENGLISH, CHINESE))
    assert english
    assert english == chinese


def test_both_name_the_same_commands() -> None:
    assert sorted(markdown.commands(ENGLISH)) == sorted(markdown.commands(CHINESE))


def test_both_have_the_same_sections_links_and_tables() -> None:
    # a page that there is in both languages is one
    english, chinese = (page.read_text(encoding="utf-8").replace(".zh-CN.md", ".md") for page in (ENGLISH, CHINESE))
    for pattern in (r"^(#+) ", r"\]\(((?!README)[^)]+)\)", r"^(\|)"):
        assert re.findall(pattern, english, re.MULTILINE) == re.findall(pattern, chinese, re.MULTILINE)


def test_every_page_of_the_docs_is_found_from_there() -> None:
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md") if not page.name.endswith(".zh-CN.md")}
    assert pages <= set(re.findall(r"\]\((docs/[^)#]+)\)", ENGLISH.read_text(encoding="utf-8")))


@both
def test_the_two_commands_stand_in_the_first_screen(page: Path) -> None:
    first = page.read_text(encoding="utf-8").splitlines()[:20]
    assert [line.split("#")[0].strip() for line in first if line.startswith("make ")] == ["make demo", "make test"]


@both
def test_the_tree_has_a_line_for_every_wing(page: Path) -> None:
    (tree,) = markdown.blocks(page, "")
    paths = list(markdown.paths(tree))
    assert len(paths) == len(set(paths))
    missing = [path for path in paths if not list(ROOT.glob(path.rstrip("/")))]
    assert not missing, "named, but not there"
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src" / "stilla").iterdir()
             if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there == {path.rstrip("/") for path in paths if path.startswith("src/stilla/") and path != "src/stilla/"}


@both
def test_every_line_of_the_tree_says_what_is_there(page: Path) -> None:
    (tree,) = markdown.blocks(page, "")
    mute = [line for line in tree.splitlines() if len(re.split(r"\s{2,}", line.strip(), maxsplit=1)) < 2]
    assert not mute


def test_both_trees_name_the_same() -> None:
    trees = [list(markdown.paths(markdown.blocks(page, "")[0])) for page in (ENGLISH, CHINESE)]
    assert trees[0] == trees[1]


def test_make_help_names_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE).group(1).split()  # type: ignore[union-attr]
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [target for target in targets if target != "help" and f"make {target} " not in said] == []


def test_ci_calls_the_readmes_test_command() -> None:
    (first, *_) = markdown.blocks(ENGLISH, "sh")
    assert "make test" in markdown.uncommented(first)
    assert "step tests make test\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_licence_the_constraints_and_the_changelog_are_there() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "[Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) < 50
    pins = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
