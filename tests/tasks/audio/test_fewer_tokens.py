"""Recognisers that write, with some of their teacher's tokens: what is kept, what they say, how they are deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig, WhisperForConditionalGeneration, pipeline

import stilla
from stilla.evaluate.generate import Decoding, writer
from stilla.recipe import StudentSpec, VocabularySpec
from stilla.rows import row_measures
from stilla.signals import Side
from stilla.stages.starting import start_student
from stilla.stages.vocabulary import Smaller
from stilla.tasks.base import Loaded
from stilla.tasks.forward import listen
from tests.tasks.audio import speakers, writers
from tests.tasks.audio.test_dictation import ready
from tests.tasks.caches import _own_cache  # noqa: F401

GONE = {"xy", "xyx", "qx"}


def smaller(task: Any, train: Any, teacher: Loaded, **spec: Any) -> Loaded:
    counted = Smaller.counted_in(VocabularySpec(**spec), task, (train,))
    return start_student(StudentSpec(vocabulary=VocabularySpec(**spec)), task, teacher, smaller=counted)[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whisper", "with times", "moonshine"])
def test_tokens_of_no_transcript_go_and_every_prompt_and_time_stays(kind: str, tmp_path: Path) -> None:
    place = writers.moonshine_folder(tmp_path / "teacher", pairs=writers.PAIRS) if kind == "moonshine" else writers.folder(
        tmp_path / "teacher", pairs=writers.PAIRS, times=kind == "with times")
    said = {} if kind == "moonshine" else {"language": "zh"}
    task, splits, teacher = ready(speakers.utterances(tmp_path / "speech"), place, **said)
    student = smaller(task, splits["train"], teacher)
    before, after = (task.tokenizer_of(one.processor) for one in (teacher, student))
    assert before.get_vocab().keys() - after.get_vocab().keys() == GONE
    assert student.model.config.vocab_size == len(after)
    ours, theirs = student.processor, teacher.processor
    assert after.convert_ids_to_tokens(ours.prompt) == before.convert_ids_to_tokens(theirs.prompt)
    assert [name for _, name in sorted(ours.times.items())] == [name for _, name in sorted(theirs.times.items())]
    for text in splits["train"]["transcription"]:
        assert after.convert_ids_to_tokens(ours.ids(text)) == before.convert_ids_to_tokens(theirs.ids(text))
    for text in ("xyx qx", "日本 é"):
        assert ours.text(ours.ids(text)) == text


@pytest.mark.slow
def test_it_is_compared_with_what_its_teacher_says_of_the_same_pieces(tmp_path: Path) -> None:
    place = writers.folder(tmp_path / "teacher", pairs=writers.PAIRS, times=True)
    task, splits, teacher = ready(speakers.utterances(tmp_path / "speech"), place, language="en")
    student = smaller(task, splits["train"], teacher)
    task = task.between(student, teacher)
    batch = task.prepare(splits["train"], student.processor, teacher.processor, training=True).collate([0, 1, 2])
    both = [listen(model, task, batch, side)
            for model, side in ((student.model, Side.STUDENT), (teacher.model, Side.TEACHER))]
    ours, theirs = task.align(*both, batch)
    apart = row_measures(ours.logits, ours.labels, theirs.logits).kl
    assert apart is not None
    assert float(apart.abs().max()) < 1e-6, "it is its teacher, without some outputs"


@pytest.mark.slow
def test_texts_between_times_are_counted_as_they_are_read(tmp_path: Path) -> None:
    place = writers.folder(tmp_path / "teacher", pairs=writers.PAIRS, times=True)
    speech = Path(speakers.utterances(tmp_path / "speech"))
    table = speech / "train" / "metadata.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *(row.split(",")[0] + ",<|0.00|>xyx<|0.10|>" for row in rows), ""]))
    task, splits, teacher = ready(str(speech), place, language="en", timestamps=1.0)
    student = smaller(task, splits["train"], teacher)
    assert {"xy", "xyx"} <= task.tokenizer_of(student.processor).get_vocab().keys()
    ours, theirs = (task.tokenizer_of(one.processor).convert_ids_to_tokens(
        one.processor.timed_ids("<|0.00|>xyx<|0.10|>")) for one in (student, teacher))
    assert ours == theirs == ["<|0.00|>", "xyx", "<|0.10|>"]


@pytest.mark.slow
def test_a_whisper_with_fewer_tokens_is_distilled_and_writes_with_plain_transformers(tmp_path: Path) -> None:
    run = stilla.distill({
        "task": "speech-recognition", "data": {"train": speakers.utterances(tmp_path / "speech"), "language": "en"},
        "teacher": writers.folder(tmp_path / "teacher", pairs=writers.PAIRS),
        "student": {"layers": {"encoder": 1, "decoder": 1}, "vocabulary": "data", "width": {"ffn": 0.5, "rounds": 1}},
        "distill": {"max_steps": 4, "batch_size": 4, "precision": "float32", "learning_rate": 1e-3},
        "evaluate": {"resamples": 100, "speed": False, "baseline": True, "generation": {"max_new_tokens": 8}},
        "allow_weak_teacher": True, "output": str(tmp_path / "run")})
    small = run.scores.student.cost.tokens
    assert small == len(writers.tokenizer(pairs=writers.PAIRS)) - len(GONE)
    assert any(note.startswith("vocabulary: ") and "tokens cut to" in note for note in run.scores.notes)
    assert run.scores.student.quality["test"].keys() >= {"wer", "bits_per_byte"}
    tokenizer = AutoTokenizer.from_pretrained(run.student)
    model = WhisperForConditionalGeneration.from_pretrained(run.student).eval()
    assert model.config.vocab_size == len(tokenizer) == small
    settings = GenerationConfig.from_pretrained(run.student)
    known = tokenizer.get_vocab()
    assert settings.lang_to_id == {f"<|{one}|>": known[f"<|{one}|>"] for one in writers.LANGUAGES}
    assert settings.no_timestamps_token_id == known["<|notimestamps|>"]
    assert settings.suppress_tokens == [known["<|startoflm|>"]]
    task, splits, made = ready(str(tmp_path / "speech"), str(run.student), language="en")
    inputs = task.asked(splits["test"], made.processor).tokens.batch([0])
    ours = task.text_of(made.processor, writer(made.model)(inputs, {}, Decoding(8))[0].ids)
    with torch.no_grad():
        ids = model.generate(input_features=inputs["input_features"], max_new_tokens=8)
    assert tokenizer.decode(ids[0], skip_special_tokens=True).strip() == ours
    source = task.asked(splits["test"], made.processor).tokens.source
    heard = pipeline("automatic-speech-recognition", str(run.student))(
        {"raw": source.wave(0, source.sounds).at(16_000), "sampling_rate": 16_000},
        generate_kwargs={"max_new_tokens": 8, "num_beams": 1})  # it takes 5 by itself
    assert heard["text"].strip() == ours
