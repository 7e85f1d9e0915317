"""Frames of spectrograms against the data's and against a teacher's, held against NumPy and transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import SpeechT5Config
from transformers.models.speecht5.modeling_speecht5 import SpeechT5SpectrogramLoss

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Frames, Spectrogram
from stilla.signals import Signals, Speech
from stilla.tasks.audio.text_to_speech import TextToSpeech
from stilla.tasks.base import Task

ROWS, BINS = 7, 5


def speech(seed: int, strays: Tensor | None = None) -> Speech:
    draw = torch.Generator().manual_seed(seed)
    before, after = torch.randn(2, ROWS, BINS, generator=draw, dtype=torch.float64)
    return Speech(before, after, 3 * torch.randn(ROWS, generator=draw, dtype=torch.float64), strays)


def labels() -> Tensor:
    """Of two utterances, of which one has four frames."""
    frames = torch.randn(ROWS, BINS, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    last = torch.zeros(ROWS, 1, dtype=torch.float64)
    last[[3, 6]] = 1
    return torch.cat([frames, last], -1)


def of_data(said: Speech, right: Tensor, before: float = 1, stop: float = 1) -> float:
    y, last = right[:, :-1].numpy(), right[:, -1].numpy()
    q = 1 / (1 + np.exp(-said.stop.numpy()))
    ends = -(5 * last * np.log(q) + (1 - last) * np.log(1 - q))
    apart = [np.abs(one.numpy() - y).mean(1) for one in (said.after, said.before)]
    return float((apart[0] + before * apart[1] + stop * ends).sum())


def test_it_is_the_distance_from_the_datas_frames_and_the_cross_entropy_of_the_end() -> None:
    said, right = speech(1), labels()
    got = Spectrogram().total(Signals(speech=said, labels=right), 0.0).item()
    assert got == pytest.approx(of_data(said, right), rel=1e-12)
    got = Spectrogram(before=0.25, stop=3.0).total(Signals(speech=said, labels=right), 0.0).item()
    assert got == pytest.approx(of_data(said, right, 0.25, 3.0), rel=1e-12)


def test_a_constant_frame_that_is_off_by_so_much_costs_so_much() -> None:
    right = labels()
    sure = torch.where(right[:, -1] > 0, 1e3, -1e3)
    off = Speech(right[:, :-1], right[:, :-1] + 0.75, sure)
    assert Spectrogram().total(Signals(speech=off, labels=right), 0.0).item() == pytest.approx(0.75 * ROWS, rel=1e-12)


def test_its_mean_over_frames_is_what_transformers_makes_of_a_padded_batch() -> None:
    said, right = speech(1), labels()
    padded = torch.full((2, 4, BINS), -100.0, dtype=torch.float64)
    mels = [padded.clone(), *(torch.zeros_like(padded) for _ in range(2))]
    stops = torch.zeros(2, 4, dtype=torch.float64)
    for row, span in ((0, slice(0, 4)), (1, slice(4, 7))):
        size = span.stop - span.start
        for whole, part in zip(mels, (right[:, :-1], said.before, said.after)):
            whole[row, :size] = part[span]
        stops[row, :size] = said.stop[span]
    criterion = SpeechT5SpectrogramLoss(SpeechT5Config(use_guided_attention_loss=False)).double()
    theirs = criterion(torch.ones(2, 3), mels[1], mels[2], stops, mels[0])
    ours = Spectrogram().total(Signals(speech=said, labels=right), 0.0) / ROWS
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-7)  # their weight of five is a float32


def test_looking_astray_costs_where_the_model_says_how_far_it_did() -> None:
    strays = torch.linspace(0, 1, ROWS, dtype=torch.float64)
    with_, without = (Spectrogram(attention=2.0).total(Signals(speech=speech(1, one), labels=labels()), 0.0).item()
                      for one in (strays, None))
    assert with_ - without == pytest.approx(2 * strays.sum().item(), rel=1e-12)


def test_a_teachers_frames_are_learnt_by_distance_and_its_ends_by_their_divergence() -> None:
    said, told = speech(1), speech(2)
    q, p = (1 / (1 + np.exp(-one.stop.numpy())) for one in (said, told))
    ends = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    apart = [np.abs(one.numpy() - other.numpy()).mean(1)
             for one, other in ((said.after, told.after), (said.before, told.before))]
    expected = (apart[0] + 0.5 * apart[1] + 2 * (1 + 4 * p) * ends).sum()
    got = Frames(before=0.5, stop=2.0).total(Signals(speech=said), Signals(speech=told), 0.0).item()
    assert got == pytest.approx(expected, rel=1e-10)


def test_a_student_that_says_what_its_teacher_says_has_nothing_to_learn() -> None:
    told = speech(2)
    stop = told.stop.clone().requires_grad_()
    loss = Frames().total(Signals(speech=Speech(told.before, told.after, stop)), Signals(speech=told), 0.0)
    loss.backward()
    assert loss.item() == 0
    assert stop.grad is not None
    assert float(stop.grad.abs().max()) < 1e-12


@pytest.mark.parametrize("kind", ["data", "teacher"])
def test_gradients_are_those_of_the_formula(kind: str) -> None:
    said, told = speech(1), speech(2)

    def loss(before: Tensor, after: Tensor, stop: Tensor) -> Tensor:
        own = Signals(speech=Speech(before, after, stop), labels=labels())
        return Spectrogram().total(own, 0.0) if kind == "data" else Frames().total(own, Signals(speech=told), 0.0)

    assert torch.autograd.gradcheck(loss, [one.requires_grad_() for one in (said.before, said.after, said.stop)])


def test_what_makes_no_frames_is_refused() -> None:
    with pytest.raises(CompatibilityError, match=r"the student makes none.*text-to-speech"):
        Spectrogram().total(Signals(labels=labels()), 0.0)
    with pytest.raises(CompatibilityError, match="the teacher makes none"):
        Frames().total(Signals(speech=speech(1)), Signals(), 0.0)
    with pytest.raises(RecipeError, match=r"stop: got -1.*0 to"):
        Frames(stop=-1.0)


@pytest.mark.parametrize("objective", [Spectrogram(), Frames()])
def test_only_tasks_that_count_frames_take_them(objective: Spectrogram | Frames) -> None:
    assert not objective.uncounted(TextToSpeech.counted)
    assert "divided by the number of frames" in objective.uncounted(Task.counted)[0]
