"""SpeechT5's forward as it is taught: held against transformers' own, without its chance and its padding."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import SpeechT5ForTextToSpeech, SpeechT5HifiGan, SpeechT5HifiGanConfig
from transformers.models.speecht5 import modeling_speecht5 as theirs

from stilla.errors import CompatibilityError
from stilla.models.stacks import find_stacks
from stilla.tasks.audio import speaking
from stilla.tasks.audio.speaking import speak
from stilla.tasks.audio.talking import teachable
from tests.tasks.audio.talkers import NO_PRENET, QUIET, SMALL, talker

TEXTS, STEPS = (7, 4), (9, 5)


def inputs() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    found = {"input_ids": torch.randint(5, 10, (2, max(TEXTS)), generator=draw),
             "decoder_input_values": torch.randn(2, max(STEPS), SMALL["num_mel_bins"], generator=draw),
             "speaker_embeddings": torch.randn(2, SMALL["speaker_embedding_dim"], generator=draw)}
    for name, sizes in (("attention_mask", TEXTS), ("decoder_attention_mask", STEPS)):
        found[name] = (torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]).long()
    return found


def one(of: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """An example by itself, without padding."""
    cut = {"input_ids": TEXTS, "attention_mask": TEXTS, "decoder_input_values": STEPS, "decoder_attention_mask": STEPS}
    return {name: value[row : row + 1, : cut[name][row]] if name in cut else value[row : row + 1]
            for name, value in of.items()}


def taught(**changes: Any) -> Any:
    model = talker(**changes)
    teachable(model, "here")
    return model


@pytest.fixture
def same_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' prenet drops what Stilla's table says."""
    layers: list[int] = []

    def dropped(self: Any, states: Tensor, share: float) -> Tensor:
        layers.append(0)
        place = (len(layers) - 1) % SMALL.get("speech_decoder_prenet_layers", 2)
        kept = torch.from_numpy(speaking._table(place, states.shape[1], states.shape[2], share))
        return torch.where(kept, states, 0) / (1 - share)

    monkeypatch.setattr(theirs.SpeechT5SpeechDecoderPrenet, "_consistent_dropout", dropped)


def test_it_makes_what_transformers_makes_but_for_chance(same_chance: None) -> None:
    plain, given = talker(), one(inputs(), 0)
    with torch.no_grad():
        expected = plain(**given).spectrogram
        teachable(plain, "here")
        torch.testing.assert_close(plain(**given).spectrogram, expected, atol=1e-6, rtol=1e-6)


def test_speaking_by_itself_is_transformers_own_of_each_text_alone(same_chance: None) -> None:
    plain, given = talker(), inputs()
    torch.nn.init.normal_(plain.speech_decoder_postnet.prob_out.weight, 0.0, 0.5)
    torch.nn.init.constant_(plain.speech_decoder_postnet.prob_out.bias, -6.0)  # so that texts end at steps of their own
    expected = [plain.generate_speech(given["input_ids"][row : row + 1, :size], given["speaker_embeddings"][row : row + 1],
                                      maxlenratio=4.0) for row, size in enumerate(TEXTS)]
    teachable(plain, "here")
    got = speak(plain, given["input_ids"], given["attention_mask"], given["speaker_embeddings"], [4 * one for one in TEXTS])
    assert len({len(one) for one in got}) == 2
    for mine, other in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_the_same_is_answered_twice_and_training_draws() -> None:
    model, given = taught(), inputs()
    with torch.no_grad():
        assert torch.equal(model(**given).spectrogram, model(**given).spectrogram)
        model.train()
        assert not torch.equal(model(**given).before, model(**given).before)


@pytest.mark.parametrize("training", [False, True])
def test_neighbours_and_padding_have_no_influence(training: bool) -> None:
    """In training, where batch norms see all of a batch, what they see of padding."""
    model, given = taught(**QUIET, **NO_PRENET), inputs()
    garbage = {name: value.clone() for name, value in given.items()}
    garbage["decoder_input_values"][1, STEPS[1] :] = 50.0
    garbage["input_ids"][1, TEXTS[1] :] = 9
    longer = {name: torch.cat([value, value[:, -3:] * 0], 1) if name.startswith("decoder") else value
              for name, value in given.items()}
    model.train(training)
    with torch.no_grad():
        first = copy.deepcopy(model)(**given)
        for other in (copy.deepcopy(model)(**garbage), copy.deepcopy(model)(**longer)):
            for row, steps in enumerate(STEPS):
                for name in ("spectrogram", "before", "stop"):
                    torch.testing.assert_close(first[name][row, : 2 * steps], other[name][row, : 2 * steps],
                                               atol=1e-5, rtol=1e-5)
        if not training:
            for row, steps in enumerate(STEPS):
                alone = model(**one(given, row)).spectrogram[0]
                torch.testing.assert_close(first.spectrogram[row, : 2 * steps], alone, atol=1e-5, rtol=1e-5)


def test_running_statistics_are_of_an_utterances_own_frames() -> None:
    model, given = taught(**QUIET), inputs()
    net = model.speech_decoder_postnet.layers[0]
    net.batch_norm.reset_running_stats()
    model.train()
    with torch.no_grad():
        before = model(**given).before
    own = torch.cat([before[row, : 2 * steps] for row, steps in enumerate(STEPS)])
    padded = torch.stack([torch.nn.functional.pad(before[row, : 2 * steps], (0, 0, 0, 2 * (max(STEPS) - steps)))
                          for row, steps in enumerate(STEPS)])
    folded = net.conv(padded.transpose(1, 2)).transpose(1, 2)
    rows = torch.cat([folded[row, : 2 * steps] for row, steps in enumerate(STEPS)])
    assert len(rows) == len(own) == 2 * sum(STEPS)
    torch.testing.assert_close(net.batch_norm.running_mean, 0.1 * rows.mean(0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(net.batch_norm.running_var, 0.9 + 0.1 * rows.var(0), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_how_far_it_looks_astray_is_transformers_guided_loss_without_its_mean_over_text() -> None:
    model, given = taught(**QUIET), inputs()
    model.train()
    strays = model(**given).strays
    assert strays.shape == (2, 2 * max(STEPS))
    assert ((strays > 0) & (strays < 1)).all()
    looked = model.speecht5(
        input_values=given["input_ids"], attention_mask=given["attention_mask"], output_attentions=True, return_dict=True,
        decoder_input_values=given["decoder_input_values"], decoder_attention_mask=given["decoder_attention_mask"],
        speaker_embeddings=given["speaker_embeddings"]).cross_attentions
    mine = speaking._strays(looked, given["attention_mask"], given["decoder_attention_mask"], model.config)
    criterion = theirs.SpeechT5GuidedMultiheadAttentionLoss(model.config)
    for row, (text, steps) in enumerate(zip(TEXTS, STEPS)):  # theirs is a mean over all pairs of step and token of a batch
        heads = torch.cat([layer[row : row + 1, :2, :steps, :text] for layer in looked], 1)
        expected = criterion(heads, torch.ones(1, text).bool(), torch.ones(1, steps).bool())
        assert float(10 / text * mine[row, :steps].mean()) == pytest.approx(float(expected), rel=1e-5)


def test_a_decoder_whose_layers_are_all_dropped_looked_nowhere() -> None:
    model = taught(decoder_layerdrop=1.0)
    model.train()
    assert not model(**inputs()).strays.any()


def test_a_prenet_that_lets_nothing_through_is_refused_and_so_is_another_family() -> None:
    with pytest.raises(CompatibilityError, match=r"speech_decoder_prenet_dropout is 0.*Set 0\.5"):
        taught(speech_decoder_prenet_dropout=0.0)
    with pytest.raises(CompatibilityError, match="SpeechT5HifiGan; text-to-speech takes"):
        teachable(SpeechT5HifiGan(SpeechT5HifiGanConfig(model_in_dim=4, upsample_initial_channel=16)), "here")


def test_no_model_speaks_beyond_the_places_of_its_decoder() -> None:
    model, given = taught(max_speech_positions=6), inputs()
    torch.nn.init.constant_(model.speech_decoder_postnet.prob_out.bias, -20.0)
    said = speak(model, *(given[name] for name in ("input_ids", "attention_mask", "speaker_embeddings")), [30, 5])
    assert [len(one) for one in said] == [6 * 2, 3 * 2]


@pytest.mark.slow
def test_what_is_saved_is_transformers_own(tmp_path: Path) -> None:
    taught().save_pretrained(tmp_path)
    again = SpeechT5ForTextToSpeech.from_pretrained(tmp_path)
    assert type(again) is SpeechT5ForTextToSpeech
    assert again.config.architectures == ["SpeechT5ForTextToSpeech"]


@pytest.mark.slow
def test_its_postnet_is_no_stack_of_layers() -> None:
    assert [one.name for one in find_stacks(taught())] == ["encoder", "decoder"]


def test_masks_of_more_steps_begin_with_those_of_fewer() -> None:
    few, many = speaking._table(0, 5, 6, 0.5), speaking._table(0, 2000, 6, 0.5)
    assert np.array_equal(few, many[:5])
    assert many.mean() == pytest.approx(0.5, abs=0.02)
    assert not np.array_equal(speaking._table(1, 5, 6, 0.5), few)
