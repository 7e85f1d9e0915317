"""Code in Markdown pages: taken out, and held against the code that it talks about."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser as torchrun_parser

from stilla.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md",
         *sorted((ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`(stilla [a-z][^`]*|make [a-z][^`]*)`")
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in _BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def uncommented(code: str) -> list[str]:
    """The lines without comments, as a language other than the comments' would show them."""
    lines = [re.sub(r"(^|\s+)#.*", "", line).rstrip() for line in code.splitlines()]
    return [line for line in lines if line]


def commands(page: Path) -> list[str]:
    """Every command, from shell blocks and from the running text."""
    found = [line for block in blocks(page, "sh") for line in uncommented(block)]
    prose = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [*found, *_INLINE.findall(prose)]


def links(page: Path) -> list[str]:
    """Links to files, as they stand."""
    return [target for target in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]


def paths(tree: str) -> list[str]:
    """Paths of a tree in a page, from its root; folders end in a slash, deeper lines are indented by two spaces a level."""
    found: list[str] = []
    folders: list[str] = []
    for line in tree.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        del folders[depth:]
        path = "".join(folders) + name
        found.append(path)
        if name.endswith("/"):
            folders.append(name)
    return found


def problem_of(command: str) -> str:
    """Why a command cannot work; empty if it can as far as names go."""
    words = shlex.split(command)
    while "=" in words[0]:  # variables
        words.pop(0)
    if words[0] == "make":
        return _make_problem([word for word in words[1:] if "=" not in word])
    if words[:2] == ["bash", ".ci/run"]:
        return "" if (ROOT / ".ci" / "run").is_file() else "no .ci/run"
    if words[0] == "torchrun" or words[:2] == ["accelerate", "launch"]:
        if problem := _launcher_problem(words):
            return problem
        words = words[words.index("-m") + 1 :]
    if words[0] == "stilla":
        return _stilla_problem(words[1:])
    return f"{words[0]} is not a program that these pages may show"


def unknown_names(code: str) -> list[str]:
    """Names of Stilla that Python code uses and that do not exist."""
    tree = ast.parse(code)
    unknown: list[str] = []
    known: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in (one for one in node.names if one.name.split(".")[0] == "stilla"):
                known[alias.asname or alias.name] = importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("stilla", "transformers"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                if hasattr(module, alias.name):
                    known[alias.asname or alias.name] = getattr(module, alias.name)
                else:
                    unknown.append(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            owner = known[node.value.id]
            if not isinstance(owner, type) and not hasattr(owner, node.attr):
                unknown.append(ast.unparse(node))
    return unknown


def _launcher_problem(words: Sequence[str]) -> str:
    """As the launcher itself reads its options."""
    parser = torchrun_parser() if words[0] == "torchrun" else launch_command_parser()
    try:
        parser.parse_args(words[1 if words[0] == "torchrun" else 2 :])
    except SystemExit:
        return f"{words[0]} does not take these options"
    return ""


def _make_problem(targets: Sequence[str]) -> str:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    there = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE).group(1).split())  # type: ignore[union-attr]
    return ", ".join(f"make has no {target}" for target in targets if target not in there)


def _stilla_problem(words: Sequence[str]) -> str:
    group: Any = typer.main.get_command(app)
    name, *arguments = words
    if name.startswith("-"):
        return "" if any(name in one.opts for one in group.params) or name == "--help" else f"no option {name}"
    if name not in group.commands:
        return f"no command {name}"
    missing = [one for one in arguments if one.startswith("recipes/") and not (ROOT / one).is_file()]
    if missing:
        return f"no {missing[0]}"
    try:
        group.commands[name].make_context(name, _filled_in(name, arguments))
    except Exception as error:  # typer's usage errors; its exceptions share no public class
        return f"{type(error).__name__}: {error}"
    return ""


def _filled_in(name: str, arguments: Sequence[str]) -> list[str]:
    """A command named in passing (`stilla report`) with what it cannot do without."""
    needed = {"evaluate": ["RUN"], "export": ["RUN"], "report": ["RUN"], "compare": ["RUN"], "list": ["tasks"]}
    return list(arguments) or needed.get(name, [])


def python_blocks() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for code in blocks(page, "python"):
            yield page, code
