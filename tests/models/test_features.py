"""Hidden states read by hooks: what the models report, with its graph, and only inside a recording."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stilla.errors import CompatibilityError
from stilla.models.features import Record, Recorder, hidden_sizes
from stilla.models.stacks import LayerStack, find_stacks
from tests.families import BART, FAMILIES, SMALL, Family, main_output

# These report states at the ends of stages, cropped, or by other names; some are compared below.
OTHERWISE = {"swin", "convnext", "resnet", "segformer", "clip", "longformer", "vit-gpt2"}
TINY_BERT = hf.BertConfig(**SMALL, num_hidden_layers=3, num_labels=2)


def named(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


@torch.no_grad()
def recorded(family: Family, **more: object) -> tuple[Record, object]:
    model = family.build()
    with Recorder(model).recording() as record:
        output = model(**family.inputs(), **more)
    return record, output


def ids() -> dict[str, Tensor]:
    return {"input_ids": torch.randint(5, 40, (2, 7))}


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if family.name not in OTHERWISE], ids=lambda family: family.name
)
def test_states_equal_what_the_model_reports(family: Family) -> None:
    record, output = recorded(family, output_hidden_states=True)
    reported = {
        name: output["hidden_states" if name == "layers" else f"{name}_hidden_states"] for name in family.stacks
    }
    for name, states in record.hidden_states.items():
        assert len(states) == len(reported[name]) == sum(family.stacks[name]) + 1
        for state, expected in zip(states[:-1], reported[name][:-1], strict=True):
            assert torch.equal(state, expected)


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "electra", "deberta-v2", "wav2vec2"])
def test_the_last_state_is_what_leaves_the_last_layer(name: str) -> None:
    record, output = recorded(named(name), output_hidden_states=True)
    assert torch.equal(record.hidden_states["layers"][-1], output["hidden_states"][-1])


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "vit", "whisper"])
def test_the_last_state_stands_before_the_norm_that_follows_the_stack(name: str) -> None:
    family = named(name)
    model = family.build()
    norms = {
        "gpt2": "transformer.ln_f",
        "llama": "model.norm",
        "t5": "decoder.final_layer_norm",
        "vit": "vit.layernorm",
        "whisper": "model.decoder.layer_norm",
    }
    entered: list[Tensor] = []
    model.get_submodule(norms[name]).register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    with torch.no_grad(), Recorder(model).recording() as record:
        model(**family.inputs())
    assert torch.equal(record.hidden_states["decoder" if len(family.stacks) > 1 else "layers"][-1], entered[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext", "resnet"])
def test_maps_of_stages_are_flattened_by_position(name: str) -> None:
    record, output = recorded(named(name), output_hidden_states=True)
    states = record.hidden_states["stages"]
    ends = [sum(named(name).stacks["stages"][:stage]) for stage in range(4)]
    for end, expected in zip(ends, output["hidden_states"], strict=True):
        batch, channels, height, width = expected.shape
        assert states[end].shape == (batch, height * width, channels)
        for position in (0, 1, width, height * width - 1):
            assert torch.equal(states[end][:, position], expected[:, :, position // width, position % width])


def test_maps_with_their_channels_last_are_flattened_by_position() -> None:
    config = hf.SamVisionConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4, mlp_dim=16,
        output_channels=8, window_size=2, global_attn_indexes=[1],
    )  # fmt: skip
    model = hf.SamVisionModel(config).eval()
    with torch.no_grad(), Recorder(model).recording() as record:
        output = model(torch.randn(2, 3, 16, 16), output_hidden_states=True)
    for state, expected in zip(record.hidden_states["layers"], output.hidden_states, strict=True):
        assert torch.equal(state, expected.reshape(2, 16, 16))


def test_two_towers_are_two_stacks_and_the_one_that_did_not_run_is_missing() -> None:
    family = named("clip")
    record, _ = recorded(family)
    assert {name: len(states) for name, states in record.hidden_states.items()} == {"text": 5, "vision": 4}
    model = family.build()
    with torch.no_grad(), Recorder(model).recording() as record:
        model.get_text_features(input_ids=family.inputs()["input_ids"])
    assert record.hidden_states.keys() == {"text"}


def test_only_the_wanted_stacks_are_recorded() -> None:
    model = named("clip").build()
    text, _ = find_stacks(model)
    with torch.no_grad(), Recorder(model, [text]).recording() as record:
        model(**named("clip").inputs())
    assert record.hidden_states.keys() == {"text"}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@torch.no_grad()
def test_recording_changes_no_output_and_leaves_no_hook(family: Family) -> None:
    model = family.build()
    expected = model(**family.inputs())
    before = _hooks(model)  # some classes have hooks of their own, from their first forward on
    with Recorder(model).recording() as record:
        assert _hooks(model) > before
        output = model(**family.inputs())
    assert _hooks(model) == before
    assert torch.equal(main_output(output), main_output(expected))
    for states in record.hidden_states.values():
        assert all(state.dim() == 3 and state.shape[0] == 2 for state in states)


def test_hooks_are_gone_after_an_error() -> None:
    model = hf.BertModel(TINY_BERT)
    with pytest.raises(ZeroDivisionError), Recorder(model).recording():
        raise ZeroDivisionError
    assert _hooks(model) == 0


def test_a_forward_outside_is_not_recorded() -> None:
    model = hf.BertModel(TINY_BERT)
    with Recorder(model).recording() as record:
        pass
    model(**ids())
    assert record.hidden_states == {}


def test_a_loss_on_states_reaches_every_layer_below() -> None:
    model = hf.BertModel(TINY_BERT)
    with Recorder(model).recording() as record:
        model(**ids())
    record.hidden_states["layers"][2].square().sum().backward()
    reached = [layer.output.dense.weight.grad is not None for layer in model.encoder.layer]
    assert reached == [True, True, False]
    assert model.embeddings.word_embeddings.weight.grad is not None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_neither_states_nor_gradients(reentrant: bool) -> None:
    model = hf.BertForSequenceClassification(
        hf.BertConfig(**{**SMALL, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    ).train()
    inputs = ids()

    def run() -> tuple[list[Tensor], list[Tensor]]:
        model.zero_grad()
        with Recorder(model).recording() as record:
            logits = model(**inputs).logits
        states = record.hidden_states["layers"]
        loss = logits.square().sum() + sum(state.square().mean() for state in states)
        loss.backward()
        assert record.hidden_states["layers"] is not states
        assert all(a is b for a, b in zip(record.hidden_states["layers"], states, strict=True))
        return [state.detach() for state in states], [weight.grad.clone() for weight in model.parameters()]

    states, gradients = run()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    again, checkpointed = run()
    for one, other in zip([*states, *gradients], [*again, *checkpointed], strict=True):
        torch.testing.assert_close(one, other)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        return self.linear(hidden_states), None


class Own(nn.Module):
    """A model outside Hugging Face, which runs its three blocks as `way` says."""

    def __init__(self, way: str = "plain") -> None:
        super().__init__()
        self.way = way
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        order = {"backwards": [2, 1, 0], "twice": [0, 1, 1, 2], "skipping": [1]}.get(self.way, [0, 1, 2])
        for index in order:
            if self.way == "checkpointed":
                x = checkpoint(lambda x, block=self.blocks[index]: block(x)[0], x, use_reentrant=True)
            else:
                x, _ = self.blocks[index](hidden_states=x)
            if self.way == "in place":
                x += 1
        return x


STACK = LayerStack("layers", ("blocks",), (), (3,))


def states_of(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    with Recorder(model, [STACK]).recording() as record:
        model(x)
    return record.hidden_states["layers"]


def test_any_module_can_be_recorded_with_a_stack_that_describes_it() -> None:
    model, x = Own(), torch.randn(2, 5, 4)
    with Recorder(model, [STACK]).recording() as record:
        y = model(x)
    states = record.hidden_states["layers"]
    assert states[0] is x
    assert states[3] is y
    assert torch.equal(states[1], model.blocks[0].linear(x))


def test_a_residual_network_of_torch_can_be_recorded() -> None:
    model = nn.Sequential()
    for name, channels in (("stem", 3), ("layer1", 4), ("layer2", 4)):
        block = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(inplace=True))
        model.add_module(name, nn.Sequential(block, *([] if name == "stem" else [nn.Sequential(nn.Conv2d(4, 4, 1))])))
    stack = LayerStack("stages", ("layer1", "layer2"), (), (2, 2))
    with Recorder(model, [stack]).recording() as record:
        maps = model(torch.randn(2, 3, 5, 6))
    states = record.hidden_states["stages"]
    assert [tuple(state.shape) for state in states] == [(2, 30, 4)] * 5
    assert torch.equal(states[-1].transpose(1, 2).unflatten(2, (5, 6)), maps)


def test_a_skipped_layer_passes_on_what_it_would_have_got() -> None:
    model, x = Own("skipping"), torch.randn(2, 5, 4)
    with Recorder(model, [STACK]).recording() as record:
        y = model(x)
    states = record.hidden_states["layers"]
    assert (states[0] is x, states[1] is x) == (True, True)
    assert (states[2] is y, states[3] is y) == (True, True)


def test_layer_drop_in_training_leaves_as_many_states() -> None:
    model = hf.BartModel(hf.BartConfig(**BART, encoder_layerdrop=0.5)).train()
    with Recorder(model).recording() as record:
        model(**ids(), decoder_input_ids=ids()["input_ids"])
    assert [len(states) for states in record.hidden_states.values()] == [5, 4]


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("twice", "layer 1 of stack `layers` ran after layer 1"),
        ("backwards", "layer 1 of stack `layers` ran after layer 2"),
        ("in place", "layer 0 of stack `layers` was changed in place"),
        ("checkpointed", "reentrant gradient checkpointing.*use_reentrant: false"),
    ],
)
def test_what_would_be_recorded_wrongly_is_refused(way: str, message: str) -> None:
    model = Own(way)
    x = torch.randn(2, 5, 4, requires_grad=True)
    with pytest.raises(CompatibilityError, match=message):
        states_of(model, x)


def test_two_forwards_in_one_recording_are_refused() -> None:
    model = hf.BertModel(TINY_BERT)
    with Recorder(model).recording():
        model(**ids())
        with pytest.raises(CompatibilityError, match=r"Record every forward by itself"):
            model(**ids())


def test_states_that_are_no_sequences_are_refused() -> None:
    model = Own()
    with pytest.raises(CompatibilityError, match=r"tensors of shape \(5, 4\)"):
        states_of(model, torch.randn(5, 4))


def test_layers_with_positions_before_examples_are_refused() -> None:
    model = hf.XLNetModel(hf.XLNetConfig(vocab_size=40, d_model=8, n_layer=2, n_head=2, d_inner=8)).eval()
    with pytest.raises(CompatibilityError, match=r"\(positions, batch, width\), here \(9, 2, 8\)"):
        hidden_sizes(model, find_stacks(model), {"input_ids": torch.ones(2, 9, dtype=torch.long)})


def test_a_model_without_stacks_is_refused() -> None:
    with pytest.raises(CompatibilityError, match=r"AlbertModel has no stack of layers.*Leave `hidden` and `maps` out"):
        Recorder(hf.AlbertModel(hf.AlbertConfig(**SMALL, num_hidden_layers=2, embedding_size=8)))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_widths_are_those_of_the_recorded_states(family: Family) -> None:
    model = family.build()
    stacks = find_stacks(model)
    with torch.no_grad(), Recorder(model, stacks).recording() as record:
        model(**family.inputs())
    sizes = {name: tuple(s.shape[1:] for s in states) for name, states in record.hidden_states.items()}
    assert hidden_sizes(model, stacks, family.inputs()) == sizes


@pytest.mark.parametrize("name", ["bert", "longformer", "gpt2", "bart", "t5", "swin", "resnet", "clip", "vit-gpt2"])
def test_widths_need_no_batch_where_inputs_can_be_made_up(name: str) -> None:
    family = named(name)
    stacks = find_stacks(model := family.build())
    made_up, given = hidden_sizes(model, stacks), hidden_sizes(model, stacks, family.inputs())
    assert made_up.keys() == given.keys()
    assert all([w for _, w in made_up[name]] == [w for _, w in states] for name, states in given.items())


def test_widths_ask_for_a_batch_where_none_can_be_made_up() -> None:
    model = hf.PatchTSTForPrediction(hf.PatchTSTConfig(
        num_input_channels=1, context_length=16, patch_length=4, d_model=8, num_attention_heads=2, ffn_dim=8,
        num_hidden_layers=2, prediction_length=4))
    with pytest.raises(CompatibilityError, match=r"no inputs could be made up for PatchTSTForPrediction.*small batch"):
        hidden_sizes(model, find_stacks(model))
    with pytest.raises(CompatibilityError, match=r"made up for Own.*not a Hugging Face model"):
        hidden_sizes(Own(), [STACK])


def test_measuring_widths_leaves_mode_gradients_and_random_state() -> None:
    model = hf.BertModel(TINY_BERT).train()
    model.pooler.eval()
    before = torch.get_rng_state()
    hidden_sizes(model, find_stacks(model))
    assert model.training
    assert model.encoder.training
    assert not model.pooler.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def _hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
