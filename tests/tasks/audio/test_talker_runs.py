"""A whole run of models that speak: trained, stored, measured by what they say, and heard in the report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoFeatureExtractor, AutoTokenizer, FastSpeech2ConformerModel

import stilla
from stilla import Run
from stilla.cache import Store
from stilla.check import check
from stilla.recipe.file import from_options
from stilla.scores import Scores
from tests.tasks.audio import reciters, talkers

pytestmark = pytest.mark.slow
EXAMPLES = 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("run")
    return stilla.distill(
        task="text-to-speech", data=talkers.ljspeech(place / "lj", EXAMPLES), teacher=talkers.folder(place / "teacher"),
        student={"layers": 1}, distill={"max_steps": 3, "batch_size": 8, "batch_norm": "frozen"},
        cache={"form": "dense", "precision": "float16"}, allow_weak_teacher=True, output=str(place / "run"),
        export=["int8"], evaluate={"baseline": True, "resamples": 100, "speed": False, "longest": 1.0})


def test_models_are_measured_by_what_they_say_and_by_next_frames(run: Run) -> None:
    assert run.scores.metric == "mcd"
    assert not run.scores.higher_is_better
    for subject in ("teacher", "student", "baseline"):
        assert set(run.scores.subjects[subject].quality[run.scores.split]) == {
            "mcd", "duration_error", "frame_error", "stop_accuracy"}


def test_files_in_int8_are_measured_as_the_student_is(run: Run) -> None:
    student, int8 = (run.scores.subjects[one] for one in ("student", "int8"))
    for split, metrics in student.quality.items():
        assert set(int8.quality[split]) == set(metrics)
        assert int8.quality[split]["frame_error"].value == pytest.approx(metrics["frame_error"].value, rel=0.5)
        assert int8.quality[split]["frame_error"].value != metrics["frame_error"].value
    assert int8.cost is not None
    assert int8.cost.bytes == sum(one.stat().st_size for one in (run.folder / "export/int8").glob("*.onnx"))
    assert "training examples, in convolutions" in (run.folder / "export/int8/README.md").read_text()


def test_the_report_lets_one_hear_the_data_and_every_model(run: Run) -> None:
    page = run.report.read_text(encoding="utf-8")
    (part,) = re.findall(r'<h2 id="samples">.*?</section>', page, re.DOTALL)
    assert len(run.scores.samples) == run.scores.examples[run.scores.split]
    assert part.count("<audio") == 4 * len(run.scores.samples)
    assert len(page) < 10_000_000
    assert Scores.load(run.folder / "scores.json").samples == run.scores.samples


def test_every_utterance_of_the_teacher_is_stored_once_with_all_its_frames(run: Run) -> None:
    store = Store(run.folder / "cache")
    coder = store.manifest.logits
    assert coder is not None
    assert (coder.plain()["classes"], coder.plain()["dtype"]) == (2 * 12 + 1, "float16")
    assert len(store) == EXAMPLES - sum(run.scores.examples.values())
    assert sum(int(shard.rows.sum()) for shard in store.shards) > 5 * len(store)


def test_models_that_make_all_frames_at_once_are_taught_by_one_that_says_durations_and_are_heard(tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "task": "text-to-speech", "data": talkers.ljspeech(tmp_path / "lj", EXAMPLES), "student": {"layers": 1},
        "teacher": reciters.folder(tmp_path / "teacher"), "output": str(tmp_path / "run"), "allow_weak_teacher": True,
        "distill": {"max_steps": 2, "batch_size": 8}, "export": ["onnx"],
        "evaluate": {"baseline": False, "resamples": 100, "speed": False, "longest": 1.0}}
    found = check(from_options(asked))
    assert not found.problems, found.problems
    run = stilla.distill(**asked)
    for subject in ("teacher", "student", "onnx"):
        assert set(run.scores.subjects[subject].quality[run.scores.split]) == {"mcd", "duration_error", "frame_error"}
    for name, value in run.scores.subjects["student"].quality[run.scores.split].items():
        assert run.scores.subjects["onnx"].quality[run.scores.split][name].value == pytest.approx(value.value, rel=1e-4)
    page = run.report.read_text(encoding="utf-8")
    assert page.count("<audio") == 3 * len(run.scores.samples)
    plain = FastSpeech2ConformerModel.from_pretrained(run.student)
    ids = AutoTokenizer.from_pretrained(run.student)("ab c", return_tensors="pt").input_ids
    assert plain.eval()(ids).spectrogram.shape[2] == AutoFeatureExtractor.from_pretrained(run.student).num_mel_bins


def test_check_says_what_stands_against_a_recipe(tmp_path: Path) -> None:
    asked = {"task": "text-to-speech", "data": talkers.ljspeech(tmp_path / "lj", EXAMPLES), "student": {"layers": 1},
             "teacher": talkers.folder(tmp_path / "teacher"), "output": str(tmp_path / "run")}
    found = check(from_options(asked))
    assert not found.problems, found.problems
    assert any("spectrogram × 0.5" in note and "frames × 0.5" in note for note in found.notes)
    for changes, words in (
        ({"evaluate": {"recogniser": "./gone"}}, r"evaluate\.recogniser"),
        ({"distill": {"objectives": [{"kind": "labels"}]}}, "use `spectrogram` and `frames`"),
    ):
        problems = check(from_options({**asked, **changes})).problems
        assert any(re.search(words, one) for one in problems), (words, problems)
