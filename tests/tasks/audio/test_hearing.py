"""What models hear of a sound: of it alone, whatever stands beside it in a batch."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from stilla.errors import CompatibilityError, DataError
from stilla.models.features import Recorder
from stilla.models.stacks import find_stacks
from stilla.recipe import ModelSource
from stilla.tasks.audio import hearing
from stilla.tasks.audio.hearing import Ear, Frames, ear_for, ear_of
from stilla.tasks.audio.norms import leave_padding_out
from stilla.tasks.audio.reading import Piece, pieces, window_of
from stilla.tasks.audio.sections import AudioClassificationData
from stilla.tasks.audio.sounds import Known, Wave
from tests.tasks.audio.setting import RATE, extractor, extractor_of, folder, model, tone

# WavLM's own code gives torch masks of two types
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")

FAMILIES = [("wav2vec2", "layer"), ("wav2vec2", "group"), ("hubert", "layer"), ("hubert", "group"), ("wavlm", "group"),
            ("data2vec", "layer"), ("conformer", "layer"), ("conformer", "group"), ("unispeech", "group"), ("sew", "layer"),
            ("w2v-bert", ""), ("ast", ""), ("whisper", "")]


def waves(*seconds: float) -> list[Wave]:
    return [Wave(tone(300 + 200 * place, length, seed=place), RATE) for place, length in enumerate(seconds)]


def heard(kind: str, norm: str) -> tuple[torch.nn.Module, Ear]:
    made = model(kind, norm)
    return made, ear_of(extractor_of(kind), made)


@pytest.mark.parametrize(("kind", "norm"), FAMILIES)
def test_neighbours_in_a_batch_have_no_influence(kind: str, norm: str) -> None:
    made, ear = heard(kind, norm)
    features = [ear.features(wave) for wave in waves(0.31, 0.2, 0.55)]
    with torch.no_grad():
        together = made(**ear.batch(features))["logits"]
        alone = torch.cat([made(**ear.batch([one]))["logits"] for one in features])
    assert torch.isfinite(together).all()
    assert (together - alone).abs().max() < 1e-5
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize(("kind", "norm"), [("data2vec", "layer"), ("conformer", "layer"), ("sew", "layer"), ("sew", "group"),
                                            ("w2v-bert", "")])
def test_a_sound_is_answered_as_transformers_answers_it_alone(kind: str, norm: str) -> None:
    """Of SEW also one of a number of frames that is no multiple of those that are made one."""
    plain, (made, ear) = model(kind, norm), heard(kind, norm)
    features = [ear.features(wave) for wave in waves(0.31, 0.2, 0.55)]
    with torch.no_grad():
        together = made(**ear.batch(features))["logits"]
        alone = torch.cat([plain(**{ear.name: torch.from_numpy(one)[None]})["logits"] for one in features])
    assert (together - alone).abs().max() < 1e-5


def test_batch_norms_of_conformers_count_a_sounds_own_frames() -> None:
    found = []
    for more in (0, 400):
        made, ear = model("conformer", "layer", hidden_dropout=0.0, layerdrop=0.0, mask_time_prob=0.0, activation_dropout=0.0,
                          attention_dropout=0.0, feat_proj_dropout=0.0, conformer_conv_dropout=0.0), extractor()
        ear = ear_of(ear, made)
        inputs = {name: torch.nn.functional.pad(one, (0, more)) for name, one in ear.batch(
            [ear.features(one) for one in waves(0.31)]).items()}
        made.train()(**inputs)["logits"].sum().backward()
        found.append({name: one.clone() for name, one in made.named_buffers() if "running" in name} | {
            name: one.grad for name, one in made.named_parameters() if one.grad is not None})
    assert any("running_var" in name for name in found[0])
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
def test_a_group_norm_without_marks_computes_what_transformers_computes(kind: str) -> None:
    wave = torch.from_numpy(extractor()(tone(300, 0.4), sampling_rate=RATE, return_tensors="np")["input_values"])
    made = model(kind, "group")
    with torch.no_grad():
        before = made(input_values=wave)["logits"]
        assert leave_padding_out(made)
        assert leave_padding_out(made)  # once
        after = made(input_values=wave)["logits"]
    assert (before - after).abs().max() < 1e-6
    assert type(made)(made.config).state_dict().keys() == made.state_dict().keys()
    assert not leave_padding_out(model(kind, "layer"))


def test_padding_would_have_changed_the_answers_of_a_group_norm() -> None:
    made = model("wav2vec2", "group")
    short, long = (torch.from_numpy(extractor()(tone(300, seconds), sampling_rate=RATE,
                                                return_tensors="np")["input_values"][0])
                   for seconds in (0.2, 0.6))
    padded = torch.zeros(2, len(long))
    padded[0, : len(short)], padded[1] = short, long
    mask = torch.zeros(2, len(long), dtype=torch.long)
    mask[0, : len(short)], mask[1] = 1, 1
    with torch.no_grad():
        differs = made(input_values=padded, attention_mask=mask)["logits"][0] - made(input_values=short[None])["logits"][0]
    assert differs.abs().max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "norm"), [("wav2vec2", "layer"), ("wav2vec2", "group"), ("wavlm", "layer")])
def test_frames_are_counted_as_the_model_makes_them(kind: str, norm: str) -> None:
    made, ear = heard(kind, norm)
    inputs = ear.batch([ear.features(wave) for wave in waves(0.31, 0.2)])
    valid = ear.valid(inputs)
    assert valid is not None
    recorder = hearing_states(made, inputs)
    assert recorder.shape[:2] == valid.shape
    for length, own in zip(inputs["attention_mask"].sum(1).tolist(), valid.sum(1).tolist(), strict=True):
        assert own == int(made._get_feat_extract_output_lengths(torch.tensor(length)))


def hearing_states(made: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad(), Recorder(made, find_stacks(made)).recording() as record:
        made(**inputs)
    return record.hidden_states["layers"][1]


def test_the_samples_of_a_number_of_frames_are_no_fewer_than_it_needs() -> None:
    frames = Frames((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))  # wav2vec2's
    assert frames.number(400) == 1
    assert frames.number(399) == 0
    assert frames.number(16_000) == 49
    for number in (1, 2, 12, 49):
        assert frames.number(frames.least(number)) == number
        assert frames.number(frames.least(number) - 1) == number - 1


@pytest.mark.parametrize(("kind", "norm"), [("wav2vec2", "layer"), ("sew", "layer"), ("w2v-bert", "")])
def test_a_sound_shorter_than_a_frame_is_heard_with_silence_behind_it(kind: str, norm: str) -> None:
    made, ear = heard(kind, norm)
    with torch.no_grad():
        assert torch.isfinite(made(**ear.batch([ear.features(Wave(tone(300, 0.002), RATE))]))["logits"]).all()


def test_a_clip_that_is_too_long_for_a_model_is_heard_in_windows_never_cut() -> None:
    ear = heard("ast", "")[1]
    assert ear.window == pytest.approx(0.655)
    known = [Known(0.5, RATE), Known(broken="x"), Known(1.5, RATE)]
    cut = pieces(known, window_of(None, [ear]))
    assert cut[0] == Piece(0, 0.0, 0.5)
    assert [one.row for one in cut] == [0, 2, 2, 2]
    assert cut[1].start == 0
    assert cut[-1].start + cut[-1].seconds == pytest.approx(1.5)
    assert all(after.start <= before.start + before.seconds for before, after in pairwise(cut[1:]))
    section = AudioClassificationData(train="x", window=2.0)
    with pytest.raises(DataError, match=r"got 2 seconds, and a model hears 0.655 at most; the rest would be cut off"):
        window_of(section, [ear])
    assert window_of(AudioClassificationData(train="x", window=0.3), [ear]) == 0.3
    assert window_of(None, [heard("wav2vec2", "layer")[1]]) == 30


def test_what_an_extractor_makes_of_a_window_is_what_it_makes_of_a_whole_sound() -> None:
    ear = heard("ast", "")[1]
    whole = Wave(tone(700, 0.6), RATE)
    np.testing.assert_array_equal(ear.features(whole.part(0, 0.4)), ear.features(Wave(whole.samples[:1600], RATE)))


@pytest.mark.slow
def test_equal_extractors_hear_the_same_and_others_do_not(tmp_path: Path) -> None:
    one, again, group = (folder(tmp_path / name, norm=norm) for name, norm in (("a", "layer"), ("b", "layer"),
                                                                                      ("c", "group")))
    first, second, marked = (ear_for(ModelSource(model=place), model(norm=norm))
                             for place, norm in ((one, "layer"), (again, "layer"), (group, "group")))
    assert hearing.same(first, second)
    assert not hearing.same(first, marked)  # the wave is the same, its padding is not
    assert hearing.same_frames(first, marked)
    slower = Ear(extractor(sampling_rate=8000), first.frames, marked=False)
    assert not hearing.same_frames(first, slower)
    first.save_pretrained(tmp_path / "again")
    assert hearing.same(ear_for(ModelSource(model=one, processor=str(tmp_path / "again")), model()), first)


def test_a_model_without_an_extractor_is_refused_in_words(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path / "m")
    with pytest.raises(CompatibilityError, match=r"holds no feature extractor; copy its preprocessor_config\.json"):
        ear_for(ModelSource(model=str(tmp_path / "m")), model())
