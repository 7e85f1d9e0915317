"""The floors and the other rules of docs/architecture.md that a machine can hold."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "stilla"


Modules = dict[str, ast.Module]


@pytest.fixture(scope="module")
def modules() -> Modules:
    """Every file of the package, by its path from there."""
    return {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
            for path in sorted(SOURCE.rglob("*.py"))}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("stilla", exclude_type_checking_imports=True, cache_dir=None)


def test_the_contracts_of_imports_hold() -> None:
    # in a process of its own: import-linter configures logging anew and keeps hold of the standard output that it met first
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_objectives_import_only_their_base_and_private_helpers(graph: grimp.ImportGraph) -> None:
    package = "stilla.objectives"
    for module in graph.find_children(package):
        imported = {name.removeprefix(f"{package}.") for name in graph.find_modules_directly_imported_by(module)
                    if name.startswith(f"{package}.")}
        strangers = {name for name in imported if name != "base" and not name.startswith("_")}
        assert not strangers, f"{module} imports its siblings {sorted(strangers)}"


def test_the_rule_about_siblings_sees_the_siblings(graph: grimp.ImportGraph) -> None:
    assert {"stilla.objectives.labels", "stilla.objectives.base"} <= graph.find_children("stilla.objectives")


@pytest.mark.slow
def test_only_features_puts_hooks_on_a_forward(modules: Modules) -> None:
    """Backward hooks and the saved tensors' hooks of `check/estimate/` see no model's states; that of `standard.py` is on a
    head's last layer, while it is trained, and gives its answer in other units."""
    hooked = {name for name, tree in modules.items() for node in ast.walk(tree)
              if isinstance(node, ast.Attribute) and node.attr.startswith("register_") and "forward" in node.attr}
    assert hooked == {"models/features.py", "tasks/shared/standard.py"}


@pytest.mark.slow
def test_the_line_asks_for_no_task_by_name(modules: Modules) -> None:
    """`if task == "text-classification"` belongs into that task's file."""
    from stilla.tasks import KINDS

    free = ("tasks/", "samples/", "cli/")  # cli: in a help text
    naming = {name for name, tree in modules.items() if not name.startswith(free) for node in ast.walk(tree)
              if isinstance(node, ast.Compare)
              for part in (node.left, *node.comparators) if isinstance(part, ast.Constant) and part.value in KINDS}
    assert not naming


def test_what_evaluates_asks_no_task_what_it_is(modules: Modules) -> None:
    """Answers of any kind are judged by exams: no question for a vocabulary, for what writes, or for a kind."""
    from stilla.tasks import KINDS

    asking = [f"{name}:{node.lineno} {ast.unparse(node)}" for name, tree in modules.items() if name.startswith("evaluate/")
              for node in ast.walk(tree) if _asks_what_a_task_is(node, KINDS)]
    assert not asking


def _asks_what_a_task_is(node: ast.AST, kinds: Iterable[str]) -> bool:
    if isinstance(node, ast.Name | ast.Attribute):
        return (node.id if isinstance(node, ast.Name) else node.attr) == "vocabulary"
    if isinstance(node, ast.ImportFrom):
        return any(part in {"vocabulary", "Vocabulary"} for part in (*(node.module or "").split("."), *_names(node)))
    if isinstance(node, ast.Constant):
        return node.value in set(kinds)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"isinstance", "issubclass"}:
        named = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
        return any(name.endswith(("Writes", "Task", "Exam", "Classification", "Vocabulary")) for name in named)
    return False


def _names(node: ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names]


@pytest.mark.parametrize("line", [
    "if task.vocabulary: pass", "isinstance(task, Writes)", "isinstance(exam, (int, WrittenExam))", 'kind == "causal-lm"',
    'task.kind in ("seq2seq", "x")', "from stilla.tasks.language.vocabulary import PERPLEXITY",
    "from stilla.tasks.language import vocabulary", 'match kind:\n case "masked-lm": pass'])
def test_a_question_for_a_task_would_be_found(line: str) -> None:
    from stilla.tasks import KINDS

    assert any(_asks_what_a_task_is(node, KINDS) for node in ast.walk(ast.parse(line)))


@pytest.mark.slow
def test_nothing_is_unpickled(modules: Modules) -> None:
    """Weights are safetensors, or read with `weights_only=True`."""
    readers = {f"{module}.load{s}" for module in ("pickle", "dill", "cloudpickle", "joblib") for s in ("", "s")}
    for name, tree in modules.items():
        for node in (one for one in ast.walk(tree) if isinstance(one, ast.Call)):
            function, where = ast.unparse(node.func), f"{name}:{node.lineno}"
            assert function not in readers, where
            if function == "torch.load":
                assert any(keyword.arg == "weights_only" and ast.unparse(keyword.value) == "True"
                           for keyword in node.keywords), where


def test_every_module_says_what_it_is(modules: Modules) -> None:
    silent = [name for name, tree in modules.items() if tree.body and ast.get_docstring(tree) is None]
    assert not silent


def test_every_public_name_loads() -> None:
    import stilla

    for name in stilla.__all__:
        assert getattr(stilla, name) is not None
    with pytest.raises(AttributeError, match="Distil"):
        stilla.Distil  # noqa: B018
