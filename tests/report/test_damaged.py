"""Whatever stands in a run's scores, `report`, `compare` and `list runs` answer with a page or in words."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from stilla.cli.listing import run_entry
from stilla.errors import DataError, StillaError
from stilla.report import write_comparison, write_report
from stilla.report.comparison import in_short
from stilla.runtime.files import unsealed
from stilla.scores import Scores
from tests.report import fakes

ODD: tuple[Any, ...] = (None, "words", "", -1, 0.5, True, [], {}, [None], {"": None}, 1e300, 10**400)


def places(plain: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of plain data; of lists the first two entries, of mappings with many alike keys the first three."""
    if path:
        yield path
    items = list(plain.items()) if isinstance(plain, dict) else list(enumerate(plain)) if isinstance(plain, list) else []
    for key, value in items[:2] if isinstance(plain, list) else items:
        yield from places(value, (*path, key))


def changed(plain: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    copied = copy.deepcopy(plain)
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    change(inner, path[-1])
    return copied


def variants(plain: Any, alike: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """alike: subjects that are left as they are within."""
    for path in places(plain):
        if len(path) > 2 and path[0] == "subjects" and path[1] in alike:
            continue
        yield f"{path} gone", changed(plain, path, lambda inner, key: inner.pop(key))
        for odd in ODD:
            yield f"{path} = {odd!r:.20}", changed(plain, path, lambda inner, key, odd=odd: inner.__setitem__(key, odd))
    yield "an unknown field", {**plain, "unknown": 1}


def refusal(plain: Any) -> str | None:
    try:
        Scores.from_plain(plain)
    except ValueError as error:
        return str(error)
    return None


def intents() -> Scores:
    """With one slice of two models: every further one is damaged in the same ways."""
    scores = fakes.intents()
    one = scores.slices[0]
    few = replace(one, quality={name: one.quality[name] for name in ("teacher", "student")})
    return replace(scores, slices=(few,), shifted=())


@pytest.mark.slow
@pytest.mark.parametrize(("make", "alike"), [(intents, ("baseline", "int8")), (fakes.digits, ()), (fakes.regression, ())])
def test_scores_of_another_version_are_a_page_or_an_answer_in_words(
    make: Callable[[], Scores], alike: Collection[str], tmp_path: Path
) -> None:
    """Without a checksum, as before there was one: every single place changed, but for what the digits have alike."""
    other = fakes.write_run(tmp_path / "other", make())
    folder = fakes.write_run(tmp_path / "run", make())
    plain = unsealed((folder / "scores.json").read_text())
    read = 0
    for what, variant in variants(plain, alike):
        (folder / "scores.json").write_text(json.dumps(variant))
        state = run_entry(folder).state  # type: ignore[union-attr]
        if state != "finished":
            assert state == "scores.json cannot be read", what
            assert 0 < len(refusal(variant) or "") < 500, what
            continue
        read += 1
        if read % 4 and make is not fakes.regression:
            continue  # pages take their time
        for command in (lambda: write_report(folder), lambda: write_comparison([folder, other], tmp_path / "page.html"),
                        lambda: in_short([other, folder])):
            try:
                command()
            except StillaError:
                pass
            except Exception as error:
                raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert read > 10


def test_a_file_that_is_not_measured_by_the_headline_is_shown_without_it(tmp_path: Path) -> None:
    scores = fakes.intents()
    files = [name for name in scores.subjects if name not in ("teacher", "student", "baseline")]
    assert files
    silent = {name: replace(scores.subjects[name], quality={}) for name in files}
    folder = fakes.write_run(tmp_path / "run", replace(scores, subjects={**scores.subjects, **silent}))
    entry = run_entry(folder)
    assert entry.state == "finished"
    assert set(entry.quality or {}) == set(scores.subjects) - set(files)
    write_report(folder)
    in_short([folder, fakes.write_run(tmp_path / "other", scores)])
    lacking = {**scores.subjects, "student": replace(scores.student, quality={})}
    with pytest.raises(ValueError, match=r"subjects\.student\.quality: there is no accuracy"):
        Scores.from_plain(unsealed(write_scores(tmp_path, replace(scores, subjects=lacking))))


def test_classes_of_a_subject_that_was_not_measured_itself_are_a_page_all_the_same(tmp_path: Path) -> None:
    folder = fakes.write_run(tmp_path / "run", fakes.intents())
    plain = unsealed((folder / "scores.json").read_text())
    del plain["subjects"]["student"]
    (folder / "scores.json").write_text(json.dumps(plain))
    write_report(folder)


def test_fewer_examples_than_none_are_refused() -> None:
    plain = json.loads(json.dumps(asdict(fakes.intents()), default=str))
    plain["flips"] = []
    plain["subjects"]["teacher"]["calibration"]["test"]["bins"][0]["count"] = -1
    with pytest.raises(ValueError, match=r"calibration\.test\.bins\.0\.count: .*greater than or equal to 0"):
        Scores.from_plain(plain)


def write_scores(folder: Path, scores: Scores) -> str:
    scores.dump(folder / "lacking.json")
    return (folder / "lacking.json").read_text()


def test_scores_that_were_changed_by_hand_are_refused_in_words(tmp_path: Path) -> None:
    folder = fakes.write_run(tmp_path / "run", fakes.regression())
    text = (folder / "scores.json").read_text()
    assert "0.861" in text
    (folder / "scores.json").write_text(text.replace("0.861", "0.961"))
    with pytest.raises(DataError, match=r"scores\.json: .*changed by hand\)\. Measure the run again: stilla evaluate"):
        write_report(folder)
    assert run_entry(folder).state == "scores.json cannot be read"  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scores.json", "recipe.yaml", "environment.json", "log.jsonl"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b"[" * 5000, b"null", b"3", b'{"a": ' * 2000])
def test_a_file_that_is_something_else_is_said(tmp_path: Path, name: str, content: bytes | None) -> None:
    """None: a folder lies in its place."""
    folder = fakes.write_run(tmp_path / "run", fakes.regression())
    other = fakes.write_run(tmp_path / "other", fakes.regression())
    (folder / name).unlink()
    (folder / name).mkdir() if content is None else (folder / name).write_bytes(content)
    for command in (lambda: write_report(folder), lambda: write_comparison([folder, other], tmp_path / "page.html")):
        if name == "scores.json":
            with pytest.raises(DataError, match=r"scores\.json"):
                command()
        else:
            command()
    run_entry(folder)


def test_a_recipe_and_an_environment_that_were_changed_are_noted_on_the_page(tmp_path: Path) -> None:
    from stilla.report.folder import read_run
    from stilla.runtime.files import sealed, signed

    folder = fakes.write_run(tmp_path / "run", fakes.regression())
    (folder / "recipe.yaml").write_text(signed("task: text-classification\n").replace("text", "test"))
    (folder / "environment.json").write_text(sealed({"torch": "2.11"}).replace("2.11", "2.12"))
    run = read_run(folder)
    assert run.environment == {}
    assert [problem.partition(":")[0] for problem in run.problems] == ["recipe.yaml", "environment.json"]
    assert run.recipe == "task: test-classification\n"
