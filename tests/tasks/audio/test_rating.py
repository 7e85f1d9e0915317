"""How natural speech sounds: DNSMOS P.835's windows, file and numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stilla.errors import CompatibilityError
from stilla.tasks.audio.rating import rater, windows
from stilla.tasks.audio.sounds import Wave
from stilla.tasks.audio.spoken import Right
from stilla.tasks.audio.spoken_exam import Said, spoken_metrics

onnx = pytest.importorskip("onnx")
LENGTH = 144_160  # 9.01 s at 16 kHz


def model(place: Path, outputs: int = 3) -> str:
    """The mean of a window, of its square and of its absolute values in place of what people would say."""
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Mul", ["input_1", "input_1"], ["square"]), helper.make_node("Abs", ["input_1"], ["size"]),
             *(helper.make_node("ReduceMean", [name, "axis"], [f"{name}_mean"], keepdims=1)
               for name in ("input_1", "square", "size")),
             helper.make_node("Concat", ["input_1_mean", "square_mean", "size_mean"][:outputs], ["Identity:0"], axis=1)]
    graph = helper.make_graph(
        nodes, "dnsmos", [helper.make_tensor_value_info("input_1", TensorProto.FLOAT, ["batch", LENGTH])],
        [helper.make_tensor_value_info("Identity:0", TensorProto.FLOAT, ["batch", outputs])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(made, str(place))
    return str(place)


def sound(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.9, 0.9, round(16_000 * seconds)).astype(np.float32)


@pytest.mark.parametrize(("seconds", "number"), [(9.01, 1), (9.99, 1), (10.5, 1), (11.2, 2), (13.02, 4)])
def test_a_long_sound_is_heard_from_every_second(seconds: float, number: int) -> None:
    samples = sound(seconds)
    pieces = windows(samples)
    assert len(pieces) == number
    for start, piece in enumerate(pieces):
        assert np.array_equal(piece, samples[16_000 * start : 16_000 * start + LENGTH])


def test_a_short_sound_is_repeated_twice_as_often_until_it_is_long_enough() -> None:
    samples = sound(3.0)
    pieces = windows(samples)
    assert [len(one) for one in pieces] == [LENGTH] * 3  # of 12 seconds
    assert np.array_equal(pieces[1], np.tile(samples, 4)[16_000 : 16_000 + LENGTH])
    assert len(windows(np.zeros(0, np.float32))) > 0


def test_ratings_are_its_authors_polynomials_of_what_the_file_says(tmp_path: Path) -> None:
    rated = rater(model(tmp_path / "sig_bak_ovr.onnx"))
    samples = sound(11.2)
    got = rated(Wave(samples, 16_000))
    said = [[one.mean(), (one**2).mean(), np.abs(one).mean()] for one in windows(samples.astype(np.float64))]
    voice, background, overall = np.transpose(said)
    assert got.voice == pytest.approx(np.mean(-0.08397278 * voice**2 + 1.22083953 * voice + 0.0052439), abs=1e-5)
    assert got.background == pytest.approx(
        np.mean(-0.13166888 * background**2 + 1.60915514 * background - 0.39604546), abs=1e-5)
    assert got.overall == pytest.approx(np.mean(-0.06766283 * overall**2 + 1.11546468 * overall + 0.04602535), abs=1e-5)
    metrics = spoken_metrics(rated=True)
    assert [one.name for one in metrics] == ["mcd", "duration_error", "dnsmos", "dnsmos_voice", "dnsmos_background"]
    frames = np.zeros((2, 5), np.float32)
    assert metrics[3].compute([Said(frames, None, got)] * 2, [Right(frames, "a")] * 2) == pytest.approx(got.voice)


def test_a_file_that_is_not_there_or_another_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match=r"evaluate\.dnsmos: '\./gone\.onnx'.*stilla\[dnsmos\]"):
        rater("./gone.onnx")
    with pytest.raises(CompatibilityError, match=r"another model than DNSMOS P\.835"):
        rater(model(tmp_path / "other.onnx", outputs=2))
    (tmp_path / "none.onnx").write_bytes(b"nothing")
    with pytest.raises(CompatibilityError, match="onnxruntime cannot read"):
        rater(str(tmp_path / "none.onnx"))


def test_it_is_what_speechmos_says_where_that_is_installed() -> None:
    speechmos = pytest.importorskip("speechmos.dnsmos", reason="needs speechmos and librosa")
    samples = sound(11.2)
    right = speechmos.run(samples, 16_000)
    got = rater("speechmos")(Wave(samples, 16_000))
    assert list(got) == pytest.approx([right["ovrl_mos"], right["sig_mos"], right["bak_mos"]], rel=1e-4)
