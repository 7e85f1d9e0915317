"""What answers rest on that are no one class of a text or picture: numbers, labels, tags, pieces of passages; and sounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from datasets import Dataset
from torch import Tensor, nn

from stilla.evaluate.reasons import PARTS, agreement, integrated, of_examples
from stilla.models.inputs import chosen, reading
from stilla.signals import Batch, Side
from stilla.tasks.text.answering import of_window
from stilla.tasks.text.question_answering import QuestionAnswering
from stilla.tasks.text.sections import QuestionAnsweringData
from stilla.tasks.text.text_classification import TextClassification
from stilla.tasks.text.token_classification import TokenClassification
from tests.tasks.text.taggers import ENTITIES, labels_of

IDS = torch.tensor([[4, 9, 17, 3, 0], [5, 8, 2, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
STEPS = 16


def config(**more: Any) -> hf.BertConfig:
    return hf.BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
                         max_position_embeddings=32, pad_token_id=0, hidden_dropout_prob=0.0,
                         attention_probs_dropout_prob=0.0, initializer_range=0.5, **more)


def made(kind: type, **more: Any) -> Any:
    torch.manual_seed(0)
    return kind(config(**more)).double().eval()


def texts(**more: Any) -> Batch:
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    return Batch(student=inputs, teacher=inputs, **more)


def captums(model: nn.Module, answer: Callable[[Any], Tensor]) -> Tensor:
    """(batch, tokens): of a number that is made of each example's answers."""
    captum = pytest.importorskip("captum.attr")
    oracle = captum.LayerIntegratedGradients(
        lambda ids, mask: answer(model(input_ids=ids, attention_mask=mask)), model.get_input_embeddings())
    found: Tensor = oracle.attribute(IDS, baselines=torch.zeros_like(IDS), n_steps=STEPS, additional_forward_args=(MASK,))
    return (found.sum(-1) * MASK).detach()


@pytest.mark.slow
def test_a_number_rests_on_what_captum_says() -> None:
    model = made(hf.BertForSequenceClassification, num_labels=1, problem_type="regression")
    found = integrated(model, TextClassification.of_model(model), texts(), Side.TEACHER, STEPS)
    np.testing.assert_allclose(found.weights, captums(model, lambda said: said.logits[:, 0]), rtol=0, atol=1e-9)


@pytest.mark.slow
def test_several_labels_rest_on_what_those_do_that_apply() -> None:
    model = made(hf.BertForSequenceClassification, num_labels=4, problem_type="multi_label_classification")
    model.classifier.bias.data[:] = torch.tensor([2.0, 2.0, -9.0, -9.0])
    model.classifier.weight.data *= 0.1
    task = TextClassification.of_model(model)
    batch = texts()
    found = integrated(model, task, batch, Side.TEACHER, STEPS)
    np.testing.assert_allclose(found.weights, captums(model, lambda said: said.logits[:, :2].sum(1)), rtol=0, atol=1e-9)
    assert task.attributed_names(found.classes, batch, Dataset.from_dict({})) == ["LABEL_0, LABEL_1"] * 2


def test_where_no_label_applies_the_likeliest_is_asked_about() -> None:
    model = made(hf.BertForSequenceClassification, num_labels=3, problem_type="multi_label_classification")
    odds = torch.tensor([[-3.0, -1.0, -2.0], [1.0, -1.0, 2.0]])
    rows = torch.stack([torch.zeros_like(odds), odds], -1).flatten(0, 1)
    assert TextClassification.of_model(model).attributed(rows, texts()).tolist() == [-1, 1, -1, 1, -1, 1]


TAGS = torch.tensor([[-100, 1, 0, 3, -100], [0, 0, 0, -100, -100]])


@pytest.mark.slow
def test_tags_rest_on_what_those_of_words_do_that_say_something() -> None:
    model = made(hf.BertForTokenClassification, **labels_of(ENTITIES))
    model.classifier.bias.data[0] = 0.7
    task, batch = TokenClassification.of_model(model), texts(labels=TAGS)
    found = integrated(model, task, batch, Side.TEACHER, STEPS)
    with torch.no_grad():
        tags = model(**batch.teacher).logits.argmax(-1)
    words = TAGS != -100
    said = words & (tags != 0)
    said = torch.where(said.any(1, keepdim=True), said, words)

    def answer(outputs: Any) -> Tensor:
        times = len(outputs.logits) // len(tags)  # captum asks about all points at once
        return (outputs.logits.gather(2, tags.repeat(times, 1)[:, :, None])[..., 0] * said.repeat(times, 1)).sum(1)

    np.testing.assert_allclose(found.weights, captums(model, answer), rtol=1e-8, atol=1e-9)
    names = task.attributed_names(found.classes, batch, Dataset.from_dict({}))
    assert names == [", ".join(dict.fromkeys(ENTITIES[int(tag)] for tag in own[there])) for own, there in zip(tags, said)]


def test_of_tags_those_outside_are_asked_about_only_where_there_are_no_others() -> None:
    model = made(hf.BertForTokenClassification, **labels_of(ENTITIES))
    tags = [1, 0, 4, 0, 0, 0]  # three words of either text
    found = TokenClassification.of_model(model).attributed(torch.eye(5)[tags], texts(labels=TAGS))
    assert found.tolist() == [1, -1, 4, 0, 0, 0]


@pytest.mark.parametrize("maybe_none", [True, False])
def test_of_passages_the_piece_is_asked_about_that_is_answered(maybe_none: bool) -> None:
    """The piece is found as the exam finds it, in NumPy."""
    section = QuestionAnsweringData.model_validate(
        {"train": "x", "context": "context", "question": "question", "answers": "answers", "max_length": 16,
         "longest_answer": 3})
    task, draw = QuestionAnswering(section, maybe_none), torch.Generator().manual_seed(0)
    places = torch.arange(12).expand(40, 12).clone()
    characters = torch.stack([10 * (places - 4), 10 * (places - 4) + 9], -1)
    characters[:, 0] = 0  # the place that says that there is no answer
    for empty in (slice(1, 4), slice(11, 12)):
        places[:, empty] = characters[:, empty] = -1
    logits = torch.where(places[:, None] >= 0, torch.randn(40, 2, 12, generator=draw, dtype=torch.float64), -1e4)
    inputs = {"input_ids": torch.zeros(40, 12, dtype=torch.long)}
    batch = Batch(student=inputs, teacher=inputs, places={"teacher": places}, characters={"teacher": characters},
                  keys=torch.arange(40))
    found = task.attributed(logits.flatten(0, 1), batch)
    names = task.attributed_names(found, batch, Dataset.from_dict({"context": ["0123456789" * 8] * 40}))
    none = 0
    for row, (start, end) in enumerate(found.unflatten(0, (-1, 2)).tolist()):
        best = of_window(logits[row].numpy(), characters[row].numpy(), 3)
        if maybe_none and best[0, 0] > best[1, 0]:
            assert (start, end, names[row]) == (0, 0, "no answer")
            none += 1
        else:
            assert (int(characters[row, start, 0]), int(characters[row, end, 1])) == tuple(best[1, 1:])
            assert len(names[row]) == best[1, 2] - best[1, 1]
    assert (none > 0) == maybe_none


def heard(kind: str, norm: str) -> tuple[Any, Any, list[Any]]:
    setting = pytest.importorskip("tests.tasks.audio.setting")
    from stilla.tasks.audio import hearing
    from stilla.tasks.audio.sounds import Wave

    model = setting.model(kind, norm).double()
    ear = hearing.ear_of(setting.extractor_of(kind), model)
    waves = [Wave(setting.tone(pitch, seconds), ear.rate) for pitch, seconds in ((700, 0.3), (300, 0.2))]
    return model, ear, [ear.features(wave) for wave in waves]


def sounds(ear: Any, waves: list[Any]) -> Batch:
    inputs = {name: one.double() if one.is_floating_point() else one for name, one in ear.batch(waves).items()}
    return Batch(student=inputs, teacher=inputs)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "norm"), [("wav2vec2", "group"), ("wav2vec2", "layer"), ("ast", "layer"),
                                           ("whisper", "layer")])
def test_of_sounds_they_are_captums_in_parts_of_a_length_and_padding_has_none(kind: str, norm: str) -> None:
    captum = pytest.importorskip("captum.attr")
    from stilla.tasks.audio.audio_classification import AudioClassification

    model, ear, waves = heard(kind, norm)
    task, both = AudioClassification.of_model(model), sounds(ear, waves)
    found = integrated(model, task, both, Side.TEACHER, STEPS)
    inputs = dict(both.teacher)
    read = inputs.pop(ear.name)
    mask = inputs.get("attention_mask")
    expected = captum.IntegratedGradients(
        lambda one, *masks: model(**{ear.name: one}, **dict(zip(inputs, masks, strict=True))).logits).attribute(
            read.clone().requires_grad_(), target=found.classes, n_steps=STEPS,
            additional_forward_args=tuple(inputs.values()))
    numbers = expected.detach().nan_to_num()
    if numbers.dim() == 3:
        numbers = numbers.sum(1 if kind == "whisper" else 2)
    for row, own in enumerate(numbers.numpy()):
        length = len(own) if mask is None else int(mask[row].sum())
        parts = min(PARTS, length)
        whose = [place * parts // length for place in range(length)]
        summed = [sum(own[place] for place in range(length) if whose[place] == part) for part in range(parts)]
        np.testing.assert_allclose(found.weights[row, :parts], summed, rtol=0, atol=1e-8)
        assert found.there[row].sum() == parts
    assert found.heard is not None
    alone = integrated(model, task, sounds(ear, waves[1:]), Side.TEACHER, STEPS)
    np.testing.assert_allclose(found.weights[1], alone.weights[0], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.there[1], alone.there[0])
    assert alone.heard is not None
    np.testing.assert_allclose(found.heard[1], alone.heard[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(agreement(found, found), 1.0)


@pytest.mark.slow
def test_of_spectrograms_positions_are_frames_whatever_comes_first() -> None:
    """A sound that is heard in its first half alone rests on nothing behind it."""
    model, ear, waves = heard("whisper", "layer")
    batch = sounds(ear, waves)
    batch.student["input_features"][:, :, 50:] = 0
    with reading(model, batch.student) as (said, read):
        logits = model(**said).logits
        found = read.weighed(logits, logits.argmax(-1))
    assert found.shape == (2, batch.student["input_features"].shape[2])
    assert found[:, 50:].abs().max() == 0
    assert (found[:, :50] != 0).all()


def test_rows_below_zero_have_no_part_and_no_rows_at_all_are_nothing() -> None:
    logits = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    one = chosen(logits, torch.tensor([1, -1, 0]))
    torch.testing.assert_close(one, logits[0, 1] + logits[2, 0])
    (gradient,) = torch.autograd.grad(chosen(logits, torch.full((3,), -1)), logits)
    assert gradient.abs().max() == 0


def test_windows_of_one_example_count_as_one() -> None:
    values = np.array([1.0, np.nan, 0.0, np.nan, 0.5])
    np.testing.assert_array_equal(of_examples(values, np.array([3, 3, 3, 5, 7])), [0.5, np.nan, 0.5])


def test_what_is_no_answer_to_a_whole_example_is_refused(tmp_path: Path) -> None:
    from stilla.errors import CompatibilityError

    model = made(hf.BertForSequenceClassification, num_labels=3)
    with pytest.raises(CompatibilityError, match="2 of these make 6 rows"):
        TextClassification.of_model(model).attributed(torch.zeros(6, 3), texts())
