"""Runs that store what the teacher says: the same student, the teacher asked once, and nothing used that does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from stilla.cache.care import contents
from stilla.check import check
from stilla.errors import CacheError, RecipeError, StillaError
from stilla.recipe import Recipe
from stilla.recipe.file import from_options
from stilla.run import capture, run
from stilla.stages import cache_choice, spent
from stilla.teachers import LiveTeacher
from tests import tiny
from tests.tasks import pairs
from tests.tasks.tiny import vit_folder
from tests.tasks.tiny_lm import bert_lm, bert_lm_tokenizer, byte_tokenizer, folder, llama, sentences

pytestmark = pytest.mark.slow


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples the live teacher was asked about while a student was trained or a cache captured."""
    counts: list[int] = []
    really = LiveTeacher.__call__

    def counted(self: LiveTeacher, batch: Any) -> Any:
        counts.append(len(batch.teacher["input_ids"]))
        return really(self, batch)

    monkeypatch.setattr(LiveTeacher, "__call__", counted)
    return counts


def recipe(folder: Path, output: str = "run", **changes: Any) -> Recipe:
    plain = {
        "task": "text-classification", "data": {**tiny.texts(folder / "data"), "augment": "none", **changes.pop("data", {})},
        "teacher": tiny.bert(folder / "teacher", dropout=0.0), "student": {"layers": 2},
        "distill": {"epochs": 3, "learning_rate": 1e-3, "precision": "float32", **changes.pop("distill", {})},
        "evaluate": {"speed": False, "resamples": 100, **changes.pop("evaluate", {})},
        "allow_weak_teacher": True, "output": str(folder / output), **changes,
    }
    return from_options(plain)


def losses(folder: Path) -> list[float]:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in entries if "loss" in entry and entry["stage"].startswith("student")]


def test_views_are_answered_once_and_the_student_is_the_same(tmp_path: Path, asked: list[int]) -> None:
    options = {"data": {"augment": "light", "views": 2}, "distill": {"epochs": 4, "trainer": {"logging_steps": 1}}}
    run(recipe(tmp_path, "live", cache="none", **options))
    assert sum(asked) == 4 * 120
    asked.clear()
    stored = recipe(tmp_path, "stored", **options)
    run(stored)
    assert sum(asked) == 2 * 120
    assert losses(tmp_path / "stored") == losses(tmp_path / "live")
    asked.clear()
    before = recipe(tmp_path, "before", **options)
    capture(before)
    assert sum(asked) == 2 * 120
    run(before)
    assert sum(asked) == 2 * 120
    assert losses(tmp_path / "before") == losses(tmp_path / "live")


def test_the_teacher_is_asked_once_and_the_student_is_the_same(tmp_path: Path, asked: list[int]) -> None:
    plain = {"distill": {"trainer": {"logging_steps": 1}}, "evaluate": {"seeds": 2}}
    run(recipe(tmp_path, "live", cache="none", **json.loads(json.dumps(plain))))
    live, _ = sum(asked), asked.clear()
    made = run(recipe(tmp_path, "stored", **json.loads(json.dumps(plain))))
    assert live == 2 * 3 * 120
    assert sum(asked) <= 120  # both students, all epochs; a batch in which everything is known is not asked
    one, other = losses(tmp_path / "live"), losses(tmp_path / "stored")
    first_epoch = len(one) // 6
    assert other[:first_epoch] == one[:first_epoch]  # to the bit
    assert other == pytest.approx(one, rel=1e-4)
    assert "form: dense" in (made.folder / "recipe.yaml").read_text()
    found = contents(made.folder / "cache")
    assert found.rows == 120 or found.rows >= 100  # the same text twice is stored once


def test_what_was_captured_beforehand_is_read_by_any_student(tmp_path: Path, asked: list[int]) -> None:
    place = str(tmp_path / "said")
    assert capture(recipe(tmp_path, "capturing", cache={"path": place})) == [place]
    assert sum(asked) == 120
    asked.clear()
    took = spent.of(tmp_path / "capturing" / "log.jsonl")["capture"]
    assert took["seconds"] > 0
    assert took["flops"] > 0
    run(recipe(tmp_path, "one", cache={"path": place}))
    run(recipe(tmp_path, "other", cache={"path": place}, student={"layers": 1}, seed=7))
    assert not asked


def test_a_capture_that_is_begun_again_asks_nothing(tmp_path: Path, asked: list[int]) -> None:
    capture(recipe(tmp_path))
    asked.clear()
    capture(recipe(tmp_path))
    assert not asked
    run(recipe(tmp_path))
    assert not asked


def test_hidden_states_are_stored_where_objectives_compare_them(tmp_path: Path, asked: list[int]) -> None:
    objectives = [{"kind": "labels"}, {"kind": "hidden"}, {"kind": "logits"}]
    run(recipe(tmp_path, cache="dense", distill={"objectives": objectives}))
    assert sum(asked) <= 120
    found = contents(tmp_path / "run" / "cache" / "states")
    assert set(found.manifest.states.widths) == {"layers/1", "layers/4"}


def test_of_states_that_are_pooled_one_vector_is_stored(tmp_path: Path, asked: list[int]) -> None:
    objectives = [{"kind": "labels"}, {"kind": "hidden", "pooling": "mean"}, {"kind": "logits"}]
    run(recipe(tmp_path, "live", cache="none", distill={"objectives": objectives}))
    asked.clear()
    run(recipe(tmp_path, cache="dense", distill={"objectives": objectives}))
    assert sum(asked) <= 120
    found = contents(tmp_path / "run" / "cache" / "states")
    assert found.manifest.states is not None
    assert found.manifest.states.pooling == "mean"
    assert found.bytes_per_row < 2 * 2 * 32 * 2 + 200  # two layers of 32 in bfloat16, not so many for every token
    for one, other in zip(losses(tmp_path / "live"), losses(tmp_path / "run"), strict=True):
        assert one == pytest.approx(other, rel=2e-2)
    tokens = [{"kind": "hidden"}, {"kind": "logits"}]
    both = [{"epochs": 1, "objectives": objectives}, {"epochs": 1, "objectives": tokens}]
    mixed = {**recipe(tmp_path, "mixed", cache="dense").model_dump(mode="json"), "distill": both}
    run(from_options(mixed))  # one stage compares tokens: their states serve both
    found = contents(tmp_path / "mixed" / "cache" / "states")
    assert found.manifest.states is not None
    assert found.manifest.states.pooling is None


def test_chosen_hidden_layers_can_be_captured_beforehand(tmp_path: Path, asked: list[int]) -> None:
    stages = [{"epochs": 1, "objectives": [{"kind": "hidden"}, {"kind": "logits"}], "precision": "float32"},
              {"epochs": 2, "objectives": [{"kind": "logits"}], "precision": "float32"}]
    plain = {**recipe(tmp_path).model_dump(mode="json"), "distill": stages}
    answers, states = capture(from_options(plain))
    assert states == f"{answers}/states"
    assert set(contents(states).manifest.states.widths) == {"layers/1", "layers/4"}
    assert contents(answers).manifest.states is None
    asked.clear()
    run(from_options(plain))
    assert not asked


def test_stages_that_compare_different_layers_share_one_cache(tmp_path: Path, asked: list[int]) -> None:
    stages = [{"epochs": 1, "objectives": [{"kind": "hidden"}], "precision": "float32"},
              {"epochs": 2, "objectives": [{"kind": "hidden", "layers": "last"}, {"kind": "logits"}], "precision": "float32"}]
    plain = {**recipe(tmp_path).model_dump(mode="json"), "distill": stages}
    (place,) = capture(from_options(plain))
    assert set(contents(place).manifest.states.widths) == {"layers/1", "layers/4"}
    asked.clear()
    run(from_options(plain))
    assert not asked
    run(from_options({**plain, "cache": {"form": "dense"}, "output": str(tmp_path / "other")}))
    assert 0 < sum(asked) <= 120


def test_students_of_other_depths_read_what_was_captured_for_the_deepest(tmp_path: Path, asked: list[int]) -> None:
    """One capture of hidden states: for a student that compares fewer layers, and for one that compares none."""
    place = {"path": str(tmp_path / "said"), "form": "dense"}
    short = {"epochs": 2, "objectives": [{"kind": "hidden"}, {"kind": "logits"}]}
    (states,) = capture(recipe(tmp_path, "deep", cache=place, student={"layers": 3}, distill=json.loads(json.dumps(short))))
    there = sorted((one.name, one.stat().st_size) for one in Path(states).iterdir())
    assert len(contents(states).manifest.states.widths) == 3
    asked.clear()
    run(recipe(tmp_path, "shallow", cache=place, student={"layers": 1}, distill=json.loads(json.dumps(short))))
    run(recipe(tmp_path, "blind", cache=place, student={"layers": 1}, distill={"epochs": 2}))
    assert not asked
    assert not (tmp_path / "said" / "cache.json").exists()
    assert sorted((one.name, one.stat().st_size) for one in Path(states).iterdir()) == there
    with pytest.raises(CacheError, match=r"hidden states: layers/1, layers/\d, layers/4 -> layers/1, layers/2, layers/3"):
        run(recipe(tmp_path, "all", cache=place, student={"layers": 4}, distill=json.loads(json.dumps(short))))


def test_a_recipe_takes_its_form_only_from_where_it_reads(tmp_path: Path) -> None:
    place = {"path": str(tmp_path / "said")}
    hidden = {"distill": {"objectives": [{"kind": "hidden"}, {"kind": "logits"}]}}
    capture(recipe(tmp_path, "states", cache={**place, "form": "top_k", "k": 2}, **json.loads(json.dumps(hidden))))
    made = run(recipe(tmp_path, "answers", cache=place))
    assert "form: dense" in (made.folder / "recipe.yaml").read_text()
    made = run(recipe(tmp_path, "both", cache={"path": str(tmp_path / "elsewhere")}, **json.loads(json.dumps(hidden))))
    assert "form: none" in (made.folder / "recipe.yaml").read_text()


@pytest.mark.parametrize(("changes", "said"), [
    ({"teacher": "other"}, r"teacher: \w+ -> \w+"),
    ({"data": {"max_length": 8}}, r"preparation\.max_length: nothing -> 8"),
])
def test_what_does_not_fit_is_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    place = {"path": str(tmp_path / "said")}
    capture(recipe(tmp_path, "capturing", cache=place))
    if changes.get("teacher") == "other":
        changes = {"teacher": tiny.bert(tmp_path / "other", seed=1, dropout=0.0)}
    with pytest.raises(CacheError, match=said):
        run(recipe(tmp_path, "run", cache=place, **changes))


def test_a_cache_of_another_teacher_is_known_before_a_run_and_begins_nothing(tmp_path: Path) -> None:
    first = recipe(tmp_path, "run")
    (place,) = capture(first)
    other = tiny.bert(tmp_path / "other", seed=1, dropout=0.0)
    (problem,) = check(recipe(tmp_path, "elsewhere", cache={"path": place}, teacher=other)).problems
    assert "what another teacher or another preparation said" in problem
    assert check(recipe(tmp_path, "elsewhere", cache={"path": place})).problems == ()
    with pytest.raises(CacheError, match=r"teacher: \w+ -> \w+"):  # of the run's own folder, which it may overwrite
        run(recipe(tmp_path, "run", teacher=other))
    run(first)  # as if it had not been


def test_another_tokenizer_is_named(tmp_path: Path) -> None:
    place = {"path": str(tmp_path / "said")}
    capture(recipe(tmp_path, "capturing", cache=place))
    file = tmp_path / "teacher" / "tokenizer.json"
    second = recipe(tmp_path, "run", cache=place)
    rules = json.loads(file.read_text())
    vocabulary = rules["model"]["vocab"]
    vocabulary["bread"], vocabulary["soup"] = vocabulary["soup"], vocabulary["bread"]
    file.write_text(json.dumps(rules))
    with pytest.raises(CacheError, match=r"processor: \w+ -> \w+"):
        run(second)


def test_a_teacher_that_computes_otherwise_with_the_same_weights_is_another(tmp_path: Path) -> None:
    first = recipe(tmp_path, "run")
    (place,) = capture(first)
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "teacher", other)
    elsewhere = recipe(tmp_path, "elsewhere", cache={"path": place}, teacher=str(other))
    assert check(elsewhere).problems == ()  # wherever it lies
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    (problem,) = check(elsewhere).problems
    assert "teacher: " in problem


def test_another_form_is_named_before_what_it_depends_on(tmp_path: Path) -> None:
    place = str(tmp_path / "said")
    asks = {"objectives": [{"kind": "logits", "temperature": 1.0}]}
    capture(recipe(tmp_path, "capturing", cache={"form": "top_k", "k": 2, "path": place}, distill=asks))
    with pytest.raises(CacheError, match=r"holds another form.*\n  kind: top_k -> samples"):
        run(recipe(tmp_path, cache={"form": "samples", "path": place}, distill=asks))  # whose draws depend on the seed


def test_stages_that_ask_a_top_k_cache_for_hidden_states_alone(tmp_path: Path) -> None:
    states = {"objectives": [{"kind": "hidden"}], "max_steps": 3}
    logits = {"objectives": [{"kind": "labels"}, {"kind": "logits", "temperature": 2.0}], "max_steps": 3}
    form = {"form": "top_k", "k": 2, "temperatures": [2.0]}
    for number, stages in enumerate(([states], [states, logits])):
        plain = recipe(tmp_path, f"run{number}", cache=form).model_dump(mode="json")
        wanted = from_options({**plain, "distill": stages})
        run(wanted)
        assert contents(f"{cache_choice.places_of(wanted, states=True)['']}").rows > 0


def test_other_tokens_are_another_run(tmp_path: Path) -> None:
    first = recipe(tmp_path, "run", cache="none", distill={"max_steps": 2})
    run(first)
    file = tmp_path / "teacher" / "tokenizer.json"
    rules = json.loads(file.read_text())
    vocabulary = rules["model"]["vocab"]
    vocabulary["bread"], vocabulary["soup"] = vocabulary["soup"], vocabulary["bread"]
    file.write_text(json.dumps(rules))
    with pytest.raises(RecipeError, match="processors"):
        run(first)


def test_random_augmentation_with_a_cache_is_refused(tmp_path: Path) -> None:
    late: dict[str, Any] = {"data": {"augment": "light", "clean_passes": 3}, "distill": {"epochs": 4}}
    with pytest.raises(StillaError, match=r"cache: .*change at random.*data\.augment: none.*first 3 passes would change no"):
        run(recipe(tmp_path, cache="dense", **late))
    with pytest.raises(StillaError, match=r"change at random"):
        capture(recipe(tmp_path, **late))


def test_a_run_in_which_nothing_changes_yet_is_cached_as_any_other(tmp_path: Path, asked: list[int]) -> None:
    """Three passes come before any text is changed; that others would come is then nothing to the run."""
    late = {"augment": "light", "clean_passes": 3}
    options: dict[str, Any] = {"evaluate": {"baseline": False}, "distill": {"epochs": 3, "trainer": {"logging_steps": 1}}}
    run(recipe(tmp_path, "same", data=late, **options))  # by default
    assert sum(asked) == 120
    assert contents(tmp_path / "same" / "cache").segments <= 120
    asked.clear()
    run(recipe(tmp_path, "live", data=late, cache="none", **options))
    assert sum(asked) == 360
    assert losses(tmp_path / "same") == pytest.approx(losses(tmp_path / "live"), rel=1e-4)
    asked.clear()
    capture(recipe(tmp_path, "beforehand", data=late, **options))
    assert sum(asked) == 120
    run(recipe(tmp_path, "beforehand", data=late, **options))
    assert sum(asked) == 120
    # not one that goes on, or in parts, until something does
    options["distill"] = {**options["distill"], "epochs": 2, "extend": 2}
    with pytest.raises(StillaError, match="change at random"):
        run(recipe(tmp_path, "on", data=late, cache="dense", **options))


def test_masked_words_that_stay_are_asked_about_once(tmp_path: Path, asked: list[int]) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text("\n".join(json.dumps({"text": text}) for text in sentences(60)), encoding="utf-8")
    plain = {"task": "masked-lm", "data": {"train": str(data), "fresh_masks": False},
             "teacher": folder(tmp_path / "teacher", bert_lm(), bert_lm_tokenizer()), "student": {"layers": 2},
             "distill": {"epochs": 3, "precision": "float32", "objectives": [{"kind": "logits", "temperature": 1.0}]},
             "cache": {"form": "top_k", "k": 5}, "evaluate": {"speed": False, "resamples": 100},
             "allow_weak_teacher": True, "output": str(tmp_path / "run")}
    run(from_options(plain))
    assert 0 < sum(asked) <= 54  # a tenth is validation data
    fresh = {**plain, "data": {"train": str(data)}, "output": str(tmp_path / "fresh")}
    with pytest.raises(StillaError, match=r"change at random.*data\.fresh_masks: false"):
        run(from_options(fresh))


def test_translations_are_learnt_the_same_from_a_cache(tmp_path: Path) -> None:
    teacher = pairs.folder(tmp_path / "teacher", "bart")
    plain = {"task": "seq2seq", "data": pairs.files(tmp_path / "data", train=40, validation=16, test=16), "teacher": teacher,
             "student": {"layers": {"encoder": 1, "decoder": 1}}, "allow_weak_teacher": True,
             "evaluate": {"speed": False, "resamples": 100, "baseline": False, "generation": {"metrics": []}},
             "distill": {"epochs": 2, "precision": "float32", "batch_size": 8, "learning_rate": 1e-3,
                         "objectives": [{"kind": "labels"}, {"kind": "logits", "temperature": 1.0}],
                         "trainer": {"logging_steps": 1}}}
    whole = {"hidden": {"form": "hidden"}, "top_k": {"form": "top_k", "k": pairs.processor("bart").tokenizer.vocab_size}}
    run(from_options({**plain, "cache": "none", "output": str(tmp_path / "live")}))
    live = losses(tmp_path / "live")
    assert len(live) == 10
    for name, form in whole.items():  # the likeliest of all are all of them, to 8 bits
        run(from_options({**plain, "cache": form, "output": str(tmp_path / name)}))
        assert losses(tmp_path / name) == pytest.approx(live, rel=1e-4 if name == "hidden" else 2e-2), name
        assert 30 < contents(tmp_path / name / "cache").segments <= 40  # some pairs are there twice


def test_pictures_are_learnt_the_same_from_a_cache(tmp_path: Path) -> None:
    for number in range(48):
        shade = 80 * (number % 3) + number
        path = tmp_path / "data" / "train" / ("dark", "grey", "bright")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (12, 12), (shade,) * 3).save(path)
    named = {"id2label": dict(enumerate(("bright", "dark", "grey"))), "label2id": {"bright": 0, "dark": 1, "grey": 2}}
    plain = {"task": "image-classification", "data": {"train": str(tmp_path / "data"), "augment": "none"},
             "teacher": str(vit_folder(tmp_path / "teacher", **named)), "student": {"layers": 1}, "allow_weak_teacher": True,
             "evaluate": {"speed": False, "resamples": 100, "baseline": False},
             "distill": {"epochs": 2, "precision": "float32", "batch_size": 8, "trainer": {"logging_steps": 1}}}
    for name in ("none", "dense"):
        run(from_options({**plain, "cache": name, "output": str(tmp_path / name)}))
    assert losses(tmp_path / "dense") == pytest.approx(losses(tmp_path / "none"), rel=1e-5)
    assert 0 < contents(tmp_path / "dense" / "cache").rows <= 48


def language(folder_: Path, output: str, **changes: Any) -> Recipe:
    data = folder_ / "texts.jsonl"
    data.write_text("\n".join(json.dumps({"text": text}) for text in sentences(60)), encoding="utf-8")
    return from_options({
        "task": "causal-lm", "data": {"train": str(data), "max_length": 48},
        "teacher": folder(folder_ / "teacher", llama(), byte_tokenizer()), "student": {"layers": 1},
        "distill": {"epochs": 3, "precision": "float32", "batch_size": 4, "trainer": {"logging_steps": 1}},
        "evaluate": {"speed": False, "resamples": 100}, "allow_weak_teacher": True, "output": str(folder_ / output),
        **changes})


def test_what_enters_a_vocabularys_head_is_stored_by_default_and_changes_nothing(
    tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(language(tmp_path, "live", cache="none"))
    live, _ = sum(asked), asked.clear()
    made = run(language(tmp_path, "stored"))
    assert 0 < 2 * sum(asked) < live
    assert contents(made.folder / "cache").manifest.logits.kind == "hidden"
    one, other = losses(tmp_path / "live"), losses(tmp_path / "stored")
    first_epoch = len(one) // 3
    assert other[:first_epoch] == one[:first_epoch]  # to the bit
    assert other == pytest.approx(one, rel=1e-5)
    asked.clear()
    assert run(language(tmp_path, "stored")).scores.student  # the same again: its own cache is no other recipe
    assert not asked
    monkeypatch.setattr(cache_choice, "LARGEST", 1000)
    run(language(tmp_path, "large"))
    assert not (tmp_path / "large" / "cache").exists()


def test_the_bytes_of_long_documents_are_estimated(tmp_path: Path) -> None:
    from stilla.check.found import Found
    from stilla.check.way import look

    books = tmp_path / "books"
    books.mkdir()
    for number in range(4):
        (books / f"{number}.txt").write_text(" ".join(sentences(40, seed=number)), encoding="utf-8")
    wanted = language(tmp_path, "run", data={"train": str(books), "document": "file", "max_length": 48}, cache="hidden")
    found = Found([])
    ready = look(wanted, found)
    assert ready is not None, found.problems
    share = 1 / (len(ready.prepared) / ready.per_example / len(ready.splits["train"]))
    guessed = cache_choice.bytes_of(wanted, wanted.cache, ready.task, ready.teacher.model, ready.prepared, share)
    (place,) = capture(wanted)
    found_there = contents(place)
    assert found_there.bytes + found_there.head_bytes == pytest.approx(guessed, rel=0.35)


def test_by_default_nothing_is_stored_where_it_would_not_help(tmp_path: Path) -> None:
    for changes in ({"data": {"augment": "light"}}, {"distill": {"epochs": 1}},
                    {"distill": {"max_steps": 3}}, {"distill": {"objectives": [{"kind": "labels"}]}},
                    {"distill": {"objectives": [{"kind": "hidden"}]}}):
        run(recipe(tmp_path, "run", **json.loads(json.dumps(changes))), overwrite=True)
        assert not (tmp_path / "run" / "cache").exists(), changes


def test_steps_count_as_the_passes_that_they_are(tmp_path: Path) -> None:
    run(recipe(tmp_path, "run", distill={"epochs": 1, "max_steps": 9, "batch_size": 32}))  # of 120 examples
    assert (tmp_path / "run" / "cache").exists()


def test_by_default_nothing_is_stored_for_stages_of_two_precisions(tmp_path: Path) -> None:
    stages = [{"epochs": 2, "precision": precision} for precision in ("float32", "bfloat16")]
    made = run(from_options({**recipe(tmp_path).model_dump(mode="json"), "distill": stages}))
    assert "form: none" in (made.folder / "recipe.yaml").read_text()


@pytest.mark.parametrize(("cache", "objective", "said"), [
    ("hidden", {}, "cache.form: hidden stores what enters the head of a language model"),
    ("samples", {"temperature": 2.0}, "samples are drawn at temperature 1, and the objectives ask for 2"),
    ({"form": "top_k", "k": 2, "temperatures": [1.0, 3.0]}, {"temperature": 2.0},
     r"ask for temperature 2, and the cache holds 1 and 3 \(cache\.temperatures, or what was captured\)"),
    ({"form": "top_k"}, {"temperature": {"linear": [4.0, 1.0]}}, "answers at one temperature per stage"),
])
def test_a_form_that_cannot_serve_the_objectives_is_refused(
    cache: Any, objective: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        run(recipe(tmp_path, cache=cache, distill={"objectives": [{"kind": "logits", **objective}]}))


def test_what_nobody_asks_for_is_not_captured(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="capture: no objective of this recipe asks the teacher anything"):
        capture(recipe(tmp_path, distill={"objectives": [{"kind": "labels"}]}))
    assert not (tmp_path / "run" / "cache").exists()


def test_the_bytes_are_estimated(tmp_path: Path) -> None:
    from stilla.check.found import Found
    from stilla.check.way import look

    wanted = recipe(tmp_path, cache="dense")
    ready = look(wanted, Found([]))
    share = 120 / len(ready.prepared)
    guessed = cache_choice.bytes_of(wanted, wanted.cache, ready.task, ready.teacher.model, ready.prepared, share)
    capture(wanted)
    assert contents(tmp_path / "run" / "cache").bytes == pytest.approx(guessed, rel=0.35)
