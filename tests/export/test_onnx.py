"""The ONNX file answers as the model does, for batches and lengths other than those it was traced with."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from stilla.errors import ExportError
from stilla.export import OnnxModel, graphs
from stilla.export import onnx as exporter

from .setting import Net, Student, lively, plain_student, text_student

TEXT_AXES = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), ("batch", "tokens"))
IMAGE_AXES = {"pixel_values": ("batch",)}

Inputs = Mapping[str, Tensor]


def words(rows: int, length: int, *, types: bool = False) -> dict[str, Tensor]:
    """Ids with an end (2) in front, so that models which look for it find one; all but the last row padded."""
    draw = torch.Generator().manual_seed(100 * rows + length)
    ids = torch.randint(4, 40, (rows, length), generator=draw)
    ids[:, 0] = 2
    mask = torch.ones_like(ids)
    for row in range(rows - 1):
        valid = max(1, length - 1 - row)
        mask[row, valid:] = 0
        ids[row, valid:] = 0
    return {"input_ids": ids, "attention_mask": mask, **({"token_type_ids": torch.zeros_like(ids)} if types else {})}


def pixels(rows: int, size: int = 32) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(rows, 3, size, size, generator=torch.Generator().manual_seed(rows))}


def logits(outputs: Any) -> Tensor:
    found: Tensor = outputs if isinstance(outputs, Tensor) else outputs["logits"]
    return found


def assert_answers_as(model: nn.Module, path: Path, batches: list[dict[str, Tensor]]) -> None:
    file = OnnxModel(path)
    for batch in batches:
        with torch.no_grad():
            expected = logits(model.eval()(**batch))
        assert float(expected.abs().max()) > 0.01  # nothing would be compared
        torch.testing.assert_close(file(batch), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Student, Path]:
    student = text_student()
    path = tmp_path_factory.mktemp("bert") / "model.onnx"
    exporter.write(student.model, student.task, student.prepared, path)
    return student, path


@pytest.mark.slow
def test_text_of_any_batch_and_length_with_padding(bert: tuple[Student, Path]) -> None:
    student, path = bert
    batches = [words(*shape, types=True) for shape in ((1, 1), (1, 24), (5, 3), (2, 17))]
    batches = [{name: value % 17 if name == "input_ids" else value for name, value in one.items()} for one in batches]
    assert_answers_as(student.model, path, batches)


@pytest.mark.slow
def test_axes_inputs_and_output_have_the_names_of_the_task(bert: tuple[Student, Path]) -> None:
    graph = onnx.load(bert[1]).graph
    shapes = {one.name: [axis.dim_param for axis in one.type.tensor_type.shape.dim] for one in graph.input}
    assert shapes == {name: ["batch", "tokens"] for name in bert[0].example}
    (output,) = graph.output
    assert output.name == "logits"
    assert [axis.dim_param or axis.dim_value for axis in output.type.tensor_type.shape.dim] == ["batch", 2]


@pytest.mark.slow
def test_file_holds_no_paths_or_shapes_of_the_machine_it_was_made_on(bert: tuple[Student, Path]) -> None:
    graph = onnx.load(bert[1])
    assert not graph.graph.value_info
    onnx.checker.check_model(graph)
    assert b".py" not in bert[1].read_bytes()
    assert [path.name for path in bert[1].parent.iterdir()] == ["model.onnx"]


@pytest.mark.slow
def test_exporting_changes_neither_the_model_nor_its_attention(bert: tuple[Student, Path]) -> None:
    model: Any = text_student().model
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), bert[0].model.parameters()))
    assert bert[0].model.config._attn_implementation == "sdpa"  # type: ignore[union-attr]
    assert all(parameter.requires_grad for parameter in bert[0].model.parameters())


@pytest.mark.slow
def test_session_says_what_is_missing_and_what_does_not_fit(bert: tuple[Student, Path], tmp_path: Path) -> None:
    file = OnnxModel(bert[1])
    assert file.bytes == bert[1].stat().st_size
    assert file.inputs == tuple(bert[0].example)
    with pytest.raises(ExportError, match=r"got attention_mask and input_ids; expected also token_type_ids"):
        file(words(2, 5))
    with pytest.raises(ExportError, match=r"fails on input_ids \(2, 25\)"):
        file({**words(2, 25, types=True), "input_ids": torch.zeros(2, 25, dtype=torch.long)})
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(ExportError, match="onnxruntime cannot read it"):
        OnnxModel(tmp_path / "broken.onnx")


@pytest.mark.slow
def test_file_that_answers_differently_is_refused(bert: tuple[Student, Path]) -> None:
    student, path = bert
    example = student.example

    def other(inputs: Inputs) -> Tensor:
        return logits(student.model.eval()(**inputs)) * 1.01

    with pytest.raises(ExportError, match=r"differ from the model's by .* for input_ids \(4, "):
        exporter.check(OnnxModel(path), other, [example])


@pytest.mark.slow
def test_file_is_the_same_each_time_and_nothing_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = lively(Net())
    for name in ("first", "second"):
        exporter.export_onnx(model, IMAGE_AXES, logits, [pixels(2)], tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert_answers_as(model, tmp_path / "first", [pixels(rows) for rows in (1, 2, 7)])
    assert capfd.readouterr() == ("", "")
    assert not [one for one in caplog.records if one.levelname != "DEBUG"]  # torch keeps a trace of its own


@pytest.mark.slow
def test_bfloat16_model_becomes_float32(tmp_path: Path) -> None:
    model = lively(Net()).bfloat16()
    exporter.export_onnx(model, IMAGE_AXES, logits, [pixels(2)], tmp_path / "model.onnx")
    assert model.head.weight.dtype == torch.bfloat16
    assert OnnxModel(tmp_path / "model.onnx")({"pixel_values": pixels(3)["pixel_values"].bfloat16()}).dtype == torch.float32


@pytest.mark.slow
def test_module_of_a_persons_own_and_weights_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "INSIDE", 100)  # instead of 1.9 GB
    student = plain_student()
    exporter.write(student.model, student.task, student.prepared, tmp_path / "model.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert OnnxModel(tmp_path / "model.onnx").bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert_answers_as(student.model, tmp_path / "model.onnx", [pixels(rows, 8) for rows in (1, 5)])


@pytest.mark.slow
def test_forward_that_looks_at_values_is_refused_with_what_to_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Deciding(Net):
        def forward(self, pixel_values: Tensor) -> Tensor:
            return super().forward(pixel_values if float(pixel_values.sum()) > 0 else -pixel_values)

    with pytest.raises(ExportError, match=r"cannot hold Deciding .*torch\.where"):
        exporter.export_onnx(Deciding(), IMAGE_AXES, logits, [pixels(2)], tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_model_that_fixes_the_batch_is_refused(tmp_path: Path) -> None:
    class Fixed(Net):
        def forward(self, pixel_values: Tensor) -> Tensor:
            return super().forward(pixel_values.reshape(2, 3, 32, 32))

    with pytest.raises(ExportError, match="cannot hold Fixed"):
        exporter.export_onnx(Fixed(), IMAGE_AXES, logits, [pixels(2)], tmp_path / "model.onnx")


def test_input_without_named_axes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="takes speaker, for which the task names no axes; known are pixel_values"):
        exporter.export_onnx(Net(), IMAGE_AXES, logits, [{**pixels(2), "speaker": torch.zeros(2)}], tmp_path / "x")


def test_missing_packages_are_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    expected = r'onnx needs onnxruntime and onnxscript, which are not installed: pip install "stilla\[onnx\]"'
    with pytest.raises(ExportError, match=expected):
        exporter.export_onnx(Net(), IMAGE_AXES, logits, [pixels(2)], tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=expected):
        OnnxModel(tmp_path / "model.onnx")


SMALL = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
         "max_position_embeddings": 70, "pad_token_id": 0}
SEQ2SEQ = {"vocab_size": 40, "d_model": 32, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
VISION = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
          "intermediate_size": 48}

TEXT = {
    "Bert": SMALL,
    "DistilBert": {"vocab_size": 40, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48,
                   "max_position_embeddings": 70},
    "Roberta": SMALL,
    "XLMRoberta": SMALL,
    "MPNet": SMALL,
    "Deberta": {**SMALL, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "DebertaV2": {**SMALL, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 16,
                  "norm_rel_ebd": "layer_norm", "share_att_key": True, "position_biased_input": False},
    "Electra": {**SMALL, "embedding_size": 16},
    "Albert": {**SMALL, "embedding_size": 16},
    "ModernBert": {**SMALL, "global_attn_every_n_layers": 2, "local_attention": 8, "bos_token_id": 2, "eos_token_id": 3,
                   "cls_token_id": 2, "sep_token_id": 3},
    "GPT2": {"vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 70, "pad_token_id": 0,
             "bos_token_id": 2, "eos_token_id": 3},
    "Llama": {**SMALL, "num_key_value_heads": 2},
    "Qwen3": {**SMALL, "num_key_value_heads": 2, "head_dim": 8},
    "Bart": {**SEQ2SEQ, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 70,
             "bos_token_id": 3},
    "T5": {**SEQ2SEQ, "d_kv": 8, "num_layers": 2, "num_heads": 4, "d_ff": 48},
}
IMAGE = {
    "ViT": VISION,
    "DeiT": VISION,
    "Beit": {**VISION, "use_relative_position_bias": True},
    "Dinov2": {**VISION, "mlp_ratio": 2},
    "Swin": {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4},
    "ConvNext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "MobileNetV2": {"image_size": 32, "depth_multiplier": 0.25},
    "Segformer": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4],
                  "decoder_hidden_size": 32},
}


@pytest.mark.slow
@pytest.mark.parametrize("family", TEXT)
def test_text_families(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = getattr(hf, f"{family}Config")(**TEXT[family], num_labels=3)
    model = lively(getattr(hf, f"{family}ForSequenceClassification")(config))
    types = family in ("Bert", "Electra", "Albert")
    path = tmp_path / "model.onnx"
    exporter.export_onnx(model, TEXT_AXES, logits, [words(2, 11, types=types)], path)
    assert_answers_as(model, path, [words(*shape, types=types) for shape in ((1, 1), (1, 60), (3, 5), (8, 33))])


@pytest.mark.slow
@pytest.mark.parametrize("family", IMAGE)
def test_image_families(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = getattr(hf, f"{family}Config")(**IMAGE[family], num_labels=3)
    model = lively(getattr(hf, f"{family}ForImageClassification")(config))
    path = tmp_path / "model.onnx"
    exporter.export_onnx(model, IMAGE_AXES, logits, [pixels(2)], path)
    assert_answers_as(model, path, [pixels(rows) for rows in (1, 3, 7)])
