"""A person's own code by its import path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stilla.errors import RecipeError
from stilla.runtime.imports import import_path, own_function


def test_modules_of_the_current_folder_are_found_by_the_command(tmp_path: Path) -> None:
    """The `stilla` script begins with its own folder on the path, not with the one it is called in."""
    (tmp_path / "my_metric_here.py").write_text("def halves(texts, references):\n    return [0.5 for _ in texts]\n")
    script = ("import sys; sys.path[0] = sys.prefix; from stilla.runtime.imports import own_function; "
              "print(own_function('my_metric_here:halves', 'evaluate.metric')(['a'], ['b']))")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[0.5]", done.stderr


def test_what_is_installed_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    (tmp_path / "fractions.py").write_text("Fraction = None\n")
    monkeypatch.delitem(sys.modules, "fractions")
    assert import_path("fractions:Fraction") is not None
    assert sys.path[-1] == str(tmp_path)


def test_what_is_not_found_is_said_with_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(RecipeError, match=f"no_such_module.*cannot be imported.*PYTHONPATH, and in {tmp_path}"):
        import_path("no_such_module:name")
    with pytest.raises(RecipeError, match=r"has no 'dump_'\. Did you mean dump\?"):
        import_path("json:dump_")


def test_what_a_function_of_ones_own_raises_is_said_as_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_own_failing.py").write_text("number = 3\ndef fails(text):\n    return 1 / 0\n")
    with pytest.raises(RecipeError, match=r"completions\.keep: 'my_own_failing:fails' raised ZeroDivisionError"):
        own_function("my_own_failing:fails", "completions.keep")("text")
    with pytest.raises(RecipeError, match=r"completions\.keep: 'my_own_failing:number' is int; expected a function"):
        own_function("my_own_failing:number", "completions.keep")


def test_nothing_is_found_where_a_command_was_started_unless_a_persons_own_code_is_asked_for(tmp_path, monkeypatch):
    """Else a downloaded folder that somebody works in could stand in for packages that are not installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    import_path("stilla.tasks.text.text_classification:TextClassification")
    assert str(tmp_path) not in sys.path
    with pytest.raises(RecipeError):
        import_path("no_such_module_here:f")
    assert sys.path[-1] == str(tmp_path)
