"""FastSpeech2-Conformer's forward as it is taught: held against transformers' own, without its padding."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import FastSpeech2ConformerModel
from transformers.models.fastspeech2_conformer.modeling_fastspeech2_conformer import FastSpeech2ConformerLoss

from stilla.errors import CompatibilityError
from stilla.models.stacks import find_stacks
from stilla.objectives import Spectrogram
from stilla.signals import Batch, Side, Signals, Speech
from stilla.students import by_layers
from stilla.tasks.audio.spoken_rows import prosody_of
from stilla.tasks.audio.talking import lasting, teachable
from tests.tasks.audio.reciters import QUIET, SMALL, reciter

TEXTS, FRAMES = (7, 4), (23, 9)
DURATIONS = [[3, 0, 5, 4, 1, 8, 2], [2, 4, 0, 3, 0, 0, 0]]


def inputs() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {"input_ids": torch.randint(5, 10, (2, max(TEXTS)), generator=draw),
            "attention_mask": (torch.arange(max(TEXTS)) < torch.tensor(TEXTS)[:, None]).long(),
            "durations": torch.tensor(DURATIONS)}


def one(of: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """A text by itself, without padding."""
    return {name: value[row : row + 1, : TEXTS[row]] for name, value in of.items()}


def taught(**changes: Any) -> Any:
    model = reciter(**changes)
    teachable(model, "here")
    return model


@torch.no_grad()
def test_it_speaks_as_transformers_does_of_each_text_alone() -> None:
    plain, given = reciter(), inputs()
    alone = [{name: value for name, value in one(given, row).items() if name != "durations"} for row in (0, 1)]
    expected = [plain(**each, return_dict=True) for each in alone]
    teachable(plain, "here")
    said, frames = lasting(plain, {name: given[name] for name in ("input_ids", "attention_mask")}, [500, 500])
    for row, right in enumerate(expected):
        assert torch.equal(frames[row], right.duration_outputs[0])
        torch.testing.assert_close(said[row], right.spectrogram[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_of_given_durations_it_makes_what_transformers_does_in_training() -> None:
    plain, given = reciter(**QUIET).train(), one(inputs(), 0)
    teachable(mine := copy.deepcopy(plain), "here")
    got = mine(**given)
    _, pitch, energy = got.prosody.unsqueeze(-1).unbind(2)
    theirs = plain(
        input_ids=given["input_ids"], attention_mask=given["attention_mask"], duration_labels=given["durations"],
        pitch_labels=pitch, energy_labels=energy, spectrogram_labels=torch.zeros(1, FRAMES[0], SMALL["num_mel_bins"]))
    torch.testing.assert_close(got.spectrogram, theirs.spectrogram, atol=1e-5, rtol=1e-5)
    for name, own in zip(("duration_outputs", "pitch_outputs", "energy_outputs"), got.prosody.unbind(2), strict=True):
        torch.testing.assert_close(own, theirs[name].view(1, -1), atol=1e-5, rtol=1e-5)
    for ours, other in zip(mine.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-5)  # what norms have seen


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
def test_neighbours_and_padding_have_no_influence(training: bool) -> None:
    """In training, where batch norms see all of a batch, what they see of padding."""
    model, given = taught(**QUIET).double(), inputs()
    garbage = {name: value.clone() for name, value in given.items()}
    garbage["input_ids"][1, TEXTS[1] :] = 9
    garbage["durations"][1, TEXTS[1] :] = 5
    longer = {name: torch.nn.functional.pad(value, (0, 3)) for name, value in given.items()}
    model.train(training)
    first = copy.deepcopy(model)(**given)
    for other in (copy.deepcopy(model)(**garbage), copy.deepcopy(model)(**longer)):
        for row, (frames, tokens) in enumerate(zip(FRAMES, TEXTS)):
            for name, length in (("spectrogram", frames), ("before", frames), ("prosody", tokens)):
                torch.testing.assert_close(first[name][row, :length], other[name][row, :length], atol=1e-10, rtol=1e-10)
    if not training:
        for row, frames in enumerate(FRAMES):
            alone = model(**one(given, row)).spectrogram[0]
            torch.testing.assert_close(first.spectrogram[row, :frames], alone, atol=1e-10, rtol=1e-10)


@torch.no_grad()
def test_a_text_whose_tokens_would_last_nothing_has_a_frame_of_each_whatever_stands_beside_it() -> None:
    """transformers sees to that only where all texts of a batch are so, and makes nothing of it otherwise."""
    model, given = taught(), inputs()
    logs = torch.full((2, max(TEXTS)), 1.6)
    logs[1] = -5.0
    own = given["attention_mask"].bool()
    assert model.lasting(logs, own, None).tolist() == [[4] * 7, [1, 1, 1, 1, 0, 0, 0]]
    assert model.lasting(logs, own, torch.tensor([10, 2])).tolist() == [[4, 4, 2, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]]
    assert model.lasting(torch.full_like(logs, 80.0), own, torch.tensor([10, 2])).sum(1).tolist() == [10, 2]


@torch.no_grad()
def test_its_loss_is_transformers_own_of_one_utterance_without_pitch_and_energy() -> None:
    model, given = taught(), one(inputs(), 0)
    made = model(**given)
    right = torch.randn(1, FRAMES[0], SMALL["num_mel_bins"], generator=torch.Generator().manual_seed(2))
    labels = torch.nn.functional.pad(right, (0, 1))
    prosody = prosody_of(made.prosody, Batch(student=given, labels=labels), Side.STUDENT)
    speech = Speech(made.before[0], made.spectrogram[0], None, prosody=prosody)
    ours = Spectrogram().total(Signals(speech=speech, labels=labels[0]), 0.0) / FRAMES[0]
    logs, pitch, energy = made.prosody.unsqueeze(-1).unbind(2)
    theirs = FastSpeech2ConformerLoss(model.config)(
        made.spectrogram, made.before, logs[..., 0], pitch, energy, right, given["durations"], pitch, energy,
        torch.ones(1, TEXTS[0]).bool(), torch.ones(1, FRAMES[0], 1).bool())
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize(("changes", "words"), [
    ({"reduction_factor": 2}, "reduction_factor is 2.*Take a model with 1"),
    ({"use_cnn_in_conformer": False}, "use_cnn_in_conformer is false")])
def test_what_transformers_cannot_run_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CompatibilityError, match=words):
        taught(**changes)


@pytest.mark.slow
def test_a_student_has_some_of_its_layers_and_is_read_by_transformers(tmp_path: Path) -> None:
    """Its config says the number of layers twice, and is built of the second."""
    model = taught()
    assert [(one.name, one.depth) for one in find_stacks(model)] == [("encoder", 2), ("decoder", 2)]
    student: Any = by_layers(model, {"encoder": 2, "decoder": 1}).model
    teachable(student, "student")
    student.save_pretrained(tmp_path)
    again = FastSpeech2ConformerModel.from_pretrained(tmp_path).eval()
    assert type(again) is FastSpeech2ConformerModel
    assert (again.config.decoder_layers, again.config.decoder_config["layers"]) == (1, 1)
    ids = one(inputs(), 1)["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(again(ids).spectrogram, student(ids).spectrogram, atol=1e-5, rtol=1e-5)
