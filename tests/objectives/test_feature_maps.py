"""The objective `maps` against the textbook in NumPy, in float64, and between real convolutions and transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from scipy.ndimage import zoom
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.models.features import Recorder
from stilla.objectives import Maps
from stilla.objectives.maps import resized
from stilla.signals import Dims, Grid, Signals, Stack
from tests.tasks.tiny import vit_config

DISTANCES = ["cosine", "mse", "relative_mse", "attention"]
distances = pytest.mark.parametrize("distance", DISTANCES)


def said(grid: Grid, width: int, depth: int, seed: int) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    positions = grid.prefix + grid.height * grid.width
    states = [torch.randn(2, positions, width, generator=generator, dtype=torch.float64) for _ in range(depth + 1)]
    return Signals(stacks={"layers": Stack(states, None, [grid] * (depth + 1))})


def dims(depth: int, width: int, stack: str = "layers") -> Dims:
    return Dims(3, {stack: (width,) * (depth + 1)})


def ready(student: Dims, teacher: Dims, **options: Any) -> Maps:
    made = Maps(**options)
    assert made.problems(student, teacher, {}) == []
    made.setup(student, teacher, {})
    return made.double()


def image(state: np.ndarray[Any, Any], grid: Grid) -> np.ndarray[Any, Any]:
    """(channels, height, width) of one example's positions."""
    return state[grid.prefix :].T.reshape(-1, grid.height, grid.width)


def halved(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    channels, height, width = picture.shape
    return picture.reshape(channels, height // 2, 2, width // 2, 2).mean((2, 4))


def oracle(distance: str, ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> float:
    """Of one example's maps on one grid."""
    if distance == "attention":
        s, t = ((one**2).sum(0).ravel() for one in (ours, theirs))
        return float(((s / np.linalg.norm(s) - t / np.linalg.norm(t)) ** 2).sum())
    found = []
    for y, x in np.ndindex(*ours.shape[1:]):
        s, t = ours[:, y, x], theirs[:, y, x]
        gap = ((s - t) ** 2).sum()
        found.append({"mse": gap / len(s), "relative_mse": gap / (t**2).sum(),
                      "cosine": 1 - s @ t / np.linalg.norm(s) / np.linalg.norm(t)}[distance])
    return float(np.mean(found))


@distances
def test_a_finer_map_with_a_class_token_equals_the_textbook(distance: str) -> None:
    small, large = Grid(2, 3), Grid(4, 6, prefix=1)
    student, teacher = said(small, 5, 2, 1), said(large, 5, 3, 2)
    made = ready(dims(2, 5), dims(3, 5), distance=distance)
    expected = 0.0
    for example in range(2):
        theirs = image(teacher.stacks["layers"].hidden_states[3][example].numpy(), large)
        if distance == "attention":  # first where it looks, then on the student's grid
            theirs = np.sqrt(halved((theirs**2).sum(0, keepdims=True)))
        else:
            theirs = halved(theirs)
        expected += oracle(distance, image(student.stacks["layers"].hidden_states[2][example].numpy(), small), theirs)
    assert made.total(student, teacher, 0.0).item() == pytest.approx(expected, rel=1e-9)


@distances
def test_a_projection_over_channels_is_learnt_where_widths_differ_and_attention_needs_none(distance: str) -> None:
    grid = Grid(2, 2)
    student, teacher = said(grid, 3, 1, 1), said(grid, 5, 1, 2)
    made = ready(dims(1, 3), dims(1, 5), distance=distance)
    weights = [one.detach().numpy() for one in made.parameters()]
    assert [one.shape for one in weights] == ([] if distance == "attention" else [(5, 3)])
    expected = 0.0
    for example in range(2):
        ours = image(student.stacks["layers"].hidden_states[1][example].numpy(), grid)
        if weights:
            ours = np.einsum("wn,nyx->wyx", weights[0], ours)
        expected += oracle(distance, ours, image(teacher.stacks["layers"].hidden_states[1][example].numpy(), grid))
    total = made.total(student, teacher, 0.0)
    assert total.item() == pytest.approx(expected, rel=1e-9)
    for one in made.parameters():
        (gradient,) = torch.autograd.grad(total, one)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize(("ours", "theirs", "whose"), [
    (Grid(1, 1), Grid(4, 4), "student's layer 1"), (Grid(4, 4), Grid(1, 1, prefix=1), "teacher's layer 2")])
def test_where_a_model_looks_is_not_asked_of_one_with_a_single_place(ours: Grid, theirs: Grid, whose: str) -> None:
    signals = said(ours, 3, 2, 1), said(theirs, 5, 3, 2)
    with pytest.raises(CompatibilityError, match=f"the {whose} has a single place"):
        ready(dims(2, 3), dims(3, 5), distance="attention").total(*signals, 0.0)
    assert ready(dims(2, 3), dims(3, 5), distance="cosine").total(*signals, 0.0) > 0


def test_a_coarser_map_is_seen_between_its_places() -> None:
    coarse = torch.randn(1, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = zoom(coarse.numpy(), (1, 1, 2, 2), order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(resized(coarse, (6, 8)).numpy(), expected, atol=1e-12)


def test_a_map_on_its_own_grid_is_unchanged_and_axes_are_resized_each_by_itself() -> None:
    state = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resized(state, (4, 5)), state)
    assert resized(state, (2, 10)).shape == (2, 3, 2, 10)
    torch.testing.assert_close(resized(resized(state, (2, 5)), (2, 10)), resized(state, (2, 10)))


@distances
def test_a_teacher_that_is_the_student_seen_finer_leaves_nothing_to_learn(distance: str) -> None:
    student = said(Grid(2, 3), 4, 1, 1)
    finer = [one.unflatten(1, (2, 3)).repeat_interleave(2, 1).repeat_interleave(3, 2).flatten(1, 2)
             for one in student.stacks["layers"].hidden_states]
    teacher = Signals(stacks={"layers": Stack(finer, None, [Grid(4, 9)] * 2)})
    made = ready(dims(1, 4), dims(1, 4), distance=distance)
    assert made.total(student, teacher, 0.0).item() == pytest.approx(0, abs=1e-12)
    assert made.total(student, said(Grid(4, 9), 4, 1, 3), 0.0).item() > 0.01


@pytest.mark.parametrize(("pairs", "expected"), [
    ("last", ((1, 4),)), ("all", ((0, 2), (1, 4))), ([[0, 0], [1, 3]], ((0, 0), (1, 3)))])
def test_pairs_are_the_last_all_or_those_named(pairs: Any, expected: Any) -> None:
    assert ready(dims(2, 4, "stages"), dims(5, 4), pairs=pairs).chosen == expected


def test_all_pairs_follow_from_how_the_student_was_made() -> None:
    made = Maps(pairs="all")
    made.setup(dims(2, 4), dims(5, 4), {"layers": (0, 3)})
    assert made.chosen == ((0, 0), (1, 3))


@pytest.mark.parametrize(("student", "teacher", "options", "words"), [
    (dims(2, 4), None, {}, "needs a teacher"),
    (dims(2, 4), dims(5, 4), {"pairs": [[2, 0]]}, r"got \[2, 0\]; expected .* up to 1 and 4"),
    (dims(2, 4), dims(5, 4), {"pairs": []}, r"got \[\]; expected"),
    (Dims(3, {"text": (4, 4), "vision": (4, 4)}), dims(5, 4), {}, "expected one stack of layers in the student, got text or"),
])
def test_what_cannot_be_compared_is_refused(student: Any, teacher: Any, options: Any, words: str) -> None:
    (problem,) = Maps(**options).problems(student, teacher, {})
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(problem)


def test_positions_without_places_are_refused() -> None:
    student = said(Grid(2, 2), 4, 1, 0)
    blind = Signals(stacks={"layers": Stack(student.stacks["layers"].hidden_states)})
    with pytest.raises(CompatibilityError, match="not known where the positions of the teacher's layer 0 lie"):
        ready(dims(1, 4), dims(1, 4)).total(student, blind, 0.0)
    assert Maps().misfits(aligned=False, packed=False) == []
    assert "different parts of a picture" in Maps().misfits(aligned=True, packed=False, framed=False)[0]


# --- real models: where their positions lie ---

MODELS: Mapping[str, tuple[Callable[[], nn.Module], Grid]] = {
    "vit": (lambda: hf.ViTModel(vit_config(image_size=32, patch_size=4)), Grid(8, 8, 1)),
    "deit": (lambda: hf.DeiTModel(hf.DeiTConfig(
        image_size=32, patch_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)),
        Grid(4, 4, 2)),
    "registers": (lambda: hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(
        image_size=32, patch_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)), Grid(4, 4, 5)),
    "resnet": (lambda: hf.ResNetModel(hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")), Grid(4, 4)),
    "convnext": (lambda: hf.ConvNextModel(hf.ConvNextConfig(
        num_stages=2, hidden_sizes=[8, 8], depths=[1, 1], image_size=32)), Grid(4, 4)),
    "swin": (lambda: hf.SwinModel(hf.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)), Grid(4, 4)),
}


def recorded(name: str, pixels: Tensor) -> Stack:
    torch.manual_seed(0)
    model = MODELS[name][0]().eval()
    with torch.no_grad(), Recorder(model).recording() as record:
        model(pixel_values=pixels)
    (stack,) = record.hidden_states
    return Stack(record.hidden_states[stack], None, record.grids[stack])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_where_positions_lie_is_found_in_convolutions_and_transformers(name: str) -> None:
    stack = recorded(name, torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    assert stack.grids[-1] == MODELS[name][1]
    for state, grid in zip(stack.hidden_states, stack.grids, strict=True):
        assert grid is not None
        assert state.shape[1] == grid.prefix + grid.height * grid.width


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_change_in_a_corner_of_the_picture_is_in_that_corner_of_the_map(name: str) -> None:
    plain = torch.zeros(1, 3, 32, 32)
    spot = plain.clone()
    spot[:, :, 20:26, 4:8] = 3.0  # low and left
    one, other = recorded(name, plain), recorded(name, spot)
    grid = one.grids[0]
    assert grid is not None
    change = (one.hidden_states[0] - other.hidden_states[0]).abs().sum(-1)[0, grid.prefix :]
    y, x = np.unravel_index(int(change.argmax()), (grid.height, grid.width))
    assert y / grid.height >= 0.5
    assert x / grid.width < 0.5
