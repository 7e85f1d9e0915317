"""Files of EoMT, in which masks narrow what queries see or do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stilla.export import graphs
from stilla.export.onnx import export_onnx
from stilla.export.session import OnnxModel
from stilla.tasks.vision.image_segmentation import ImageSegmentation
from stilla.tasks.vision.narrowing import decided_before
from stilla.tasks.vision.segmentation import SemanticSegmentation
from tests.tasks.vision import segmenting


def eomt(*shares: float) -> Any:
    made: Any = segmenting.model("eomt", num_blocks=len(shares), num_hidden_layers=4)
    made.attn_mask_probs.copy_(torch.tensor(shares))
    plain = {name: value.clone() for name, value in made.state_dict().items()}
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        before = made(pixel_values=pixels).masks_queries_logits
        kind = type(made)
        decided_before(made)
        if all(share in (0, 1) for share in shares):
            torch.testing.assert_close(made(pixel_values=pixels).masks_queries_logits, before, rtol=0, atol=0)
    assert type(made).__name__ == kind.__name__
    assert made.state_dict().keys() == plain.keys()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("task", [ImageSegmentation, SemanticSegmentation])
@pytest.mark.parametrize("shares", [(1.0, 1.0), (0.0, 0.0), (0.0, 1.0)])
def test_a_graph_narrows_where_the_model_does(tmp_path: Path, task: Any, shares: tuple[float, ...]) -> None:
    model = eomt(*shares)
    bound = task.of_model(model)
    assert not bound.unwritten(model, ["onnx"])
    batches = [{"pixel_values": torch.randn(number, 3, 32, 32)} for number in (3, 1)]
    with torch.no_grad():
        model(**batches[0])
    export_onnx(model, bound.axes, bound.outputs, batches[:1], tmp_path / "model.onnx", bound.answer)
    file, whole = OnnxModel(tmp_path / "model.onnx"), graphs.ready(model)
    for batch in batches:
        with torch.no_grad():
            torch.testing.assert_close(file(batch), bound.outputs(whole(**batch)), rtol=1e-4, atol=1e-4)
    assert torch.equal(model.attn_mask_probs, torch.tensor(shares))


@pytest.mark.parametrize("task", [ImageSegmentation, SemanticSegmentation])
def test_what_is_drawn_anew_each_time_is_not_written(task: Any) -> None:
    model = eomt(1.0, 0.5)
    (why,) = task.of_model(model).unwritten(model, ["onnx"])
    assert why.startswith("onnx: an EoMT that draws at random which queries see no more than their masks")
