"""Students that stay below a limit: counted without being built, and as large when they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers as hf

from stilla.errors import CompatibilityError
from stilla.recipe import Width
from stilla.students import by_layers, by_width, first_units, with_layers
from stilla.students import candidates as module
from stilla.students.candidates import READABLE, Candidate, Vocabulary, candidates, finalists
from stilla.students.layers import depths
from stilla.students.sizes import KINDS
from stilla.students.vocabulary import size_of_a_token, with_rows
from tests.families import FAMILIES

SHAPE = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 200,
         "max_position_embeddings": 32}
WIDE = {**SHAPE, "intermediate_size": 256}


def bert(layers: int = 6) -> hf.PreTrainedModel:
    return hf.BertForSequenceClassification(hf.BertConfig(num_hidden_layers=layers, **SHAPE))


def size(model: torch.nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())


def vocabulary(tokens: int = 200, always: int = 20) -> Vocabulary:
    return Vocabulary(tokens, always, lambda kept: kept / tokens)


@pytest.mark.slow
def test_without_a_limit_every_depth_is_a_candidate_with_all_tokens() -> None:
    found = candidates(bert(), None, vocabulary())
    assert [one.layers for one in found] == [6, 5, 4, 3, 2, 1]
    assert all(one.tokens is None and one.kept == 1.0 for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.9, 0.6, 0.4, 0.3])
def test_candidates_are_as_large_as_said_and_below_the_limit_by_less_than_a_token(share: float) -> None:
    teacher = bert()
    most = int(share * size(teacher))
    found = candidates(teacher, most, vocabulary())
    assert found
    for one in found:
        student = by_layers(teacher, one.layers).model
        if one.tokens is not None:
            assert isinstance(student, hf.PreTrainedModel)
            student = with_rows(student, range(one.tokens))
            assert most - one.parameters < 16
            assert one.kept == one.tokens / 200
        assert one.parameters == size(student) <= most


@pytest.mark.slow
def test_what_needs_more_tokens_than_there_is_room_for_is_no_candidate() -> None:
    teacher = bert()
    most = size(by_layers(teacher, 3).model) - 100 * 16
    assert [one.layers for one in candidates(teacher, most, vocabulary(always=100))] == [3, 2, 1]
    assert [one.layers for one in candidates(teacher, most, vocabulary(always=101))] == [2, 1]
    assert [one.layers for one in candidates(teacher, most, None)] == [
        layers for layers in (2, 1) if size(by_layers(teacher, layers).model) <= most]


@pytest.mark.parametrize(("config", "model", "each"), [
    (hf.GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=64, n_positions=8), hf.GPT2LMHeadModel, 16),  # tied
    (hf.LlamaConfig(num_hidden_layers=2, tie_word_embeddings=False, **{**SHAPE, "vocab_size": 64}), hf.LlamaForCausalLM, 32),
    (hf.BertConfig(num_hidden_layers=2, **SHAPE), hf.BertForMaskedLM, 17),  # tied, with a bias
])
def test_a_token_is_as_large_as_its_rows(config: hf.PreTrainedConfig, model: type[hf.PreTrainedModel], each: int) -> None:
    assert size_of_a_token(model(config)) == each


@pytest.mark.slow
def test_of_two_stacks_each_may_be_cut() -> None:
    config = hf.T5Config(d_model=16, d_kv=8, num_heads=2, d_ff=24, num_layers=4, num_decoder_layers=2, vocab_size=64)
    found = candidates(hf.T5ForConditionalGeneration(config), None, None)
    assert found[0].layers == {"encoder": 4, "decoder": 2}
    assert found[-1].layers == {"encoder": 1, "decoder": 1}
    assert [one.depth for one in found] == sorted((one.depth for one in found), reverse=True)


@pytest.mark.slow
def test_stages_are_cut_together() -> None:
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[4, 6], layer_type="basic")
    found = candidates(hf.ResNetForImageClassification(config), None, None)
    assert found[0].layers == {"depths": [4, 6]}
    assert found[-1].layers == {"depths": [1, 1]}


def one(layers: int, kept: float) -> Candidate:
    return Candidate(layers, 1000 * layers, int(100 * kept), kept)


def test_finalists_are_about_the_deepest_that_can_read_the_texts() -> None:
    found = [one(6, 0.5), one(5, 0.8), one(4, 0.96), one(3, 0.98), one(2, 1.0), one(1, 1.0)]
    assert [each.layers for each in finalists(found)] == [4, 3, 2]
    assert [each.layers for each in finalists(found[3:])] == [3, 2, 1]
    assert [each.layers for each in finalists(found[:2])] == [6, 5]


def test_where_no_whole_layers_read_the_texts_the_narrower_ones_that_do_are_tried() -> None:
    """Measured: a translator of a third of its size that had lost three quarters of its tokens learnt nothing."""
    lacking, half = one(2, 0.7), replace(one(2, 0.996), ffn=0.5)
    assert finalists([lacking, half]) == [lacking, half]
    less = replace(half, kept=0.9)
    assert finalists([lacking, less]) == [lacking, less]
    assert finalists([lacking, less], in_tokens=True) == [less]
    assert finalists([lacking, half, one(1, 1.0)], in_tokens=True) == [half, one(1, 1.0)]
    assert finalists([lacking], in_tokens=True) == [lacking]
    slim = replace(one(1, 0.996), ffn=0.75, hidden=0.75)
    assert finalists([lacking, slim]) == [lacking, slim]
    assert finalists([lacking, slim], in_tokens=True) == [slim]


@pytest.mark.slow
def test_where_none_reads_nearly_all_of_the_texts_the_one_that_reads_most_is_a_candidate() -> None:
    teacher = hf.BertForSequenceClassification(hf.BertConfig(num_hidden_layers=1, **{**WIDE, "intermediate_size": 128}))
    most = size(teacher) - 150 * 16  # whole layers have room for 50 tokens, and with half of the neurons for all but a few
    found = candidates(teacher, most, Vocabulary(200, 20, lambda kept: kept / 400), narrower=True)
    whole, less = sorted((each for each in found if each.hidden == 1), key=lambda one: -one.ffn)
    assert (whole.tokens, less.ffn) == (50, 0.5)
    assert READABLE > less.kept > whole.kept
    all_there = candidates(teacher, most, Vocabulary(200, 20, lambda kept: kept / 400), narrower=True, in_tokens=True)
    assert [(each.ffn, each.kept) for each in all_there if each.hidden == 1 and each.ffn < 1] == [(0.25, 1.0)]


def test_with_all_tokens_the_deepest_is_taken() -> None:
    assert [each.layers for each in finalists([Candidate(4, 10), Candidate(3, 8)])] == [4]


SMALL: list[tuple[hf.PreTrainedModel, bool]] = [
    (hf.BertForSequenceClassification(hf.BertConfig(num_hidden_layers=4, **WIDE)), True),
    (hf.GPT2LMHeadModel(hf.GPT2Config(n_layer=4, n_embd=16, n_head=2, vocab_size=64, n_positions=32)), True),
    (hf.ViTForImageClassification(hf.ViTConfig(num_hidden_layers=4, hidden_size=16, num_attention_heads=2,
                                               intermediate_size=64, image_size=8, patch_size=4)), False),
    (hf.T5ForConditionalGeneration(hf.T5Config(d_model=16, d_kv=8, num_heads=2, d_ff=64, num_layers=2,
                                               num_decoder_layers=2, vocab_size=64)), True),
]


@pytest.mark.slow
@pytest.mark.parametrize(("teacher", "reads"), SMALL, ids=lambda one: type(one).__name__)
def test_narrower_candidates_are_as_large_as_said_and_read_the_texts(teacher: hf.PreTrainedModel, reads: bool) -> None:
    most = size(by_layers(teacher, depths(teacher)[0]).model) * 2 // 3
    there = vocabulary(int(teacher.get_input_embeddings().weight.shape[0]), 60) if reads else None
    found = candidates(teacher, most, there, narrower=True)
    less = [each for each in found if each.ffn < 1]
    assert less
    for each in less:
        model = by_layers(teacher, each.layers).model
        assert isinstance(model, hf.PreTrainedModel)
        student = by_width(model, Width(ffn=each.ffn, rounds=1), first_units).of(model)
        if each.tokens is not None:
            student = with_rows(student, range(each.tokens))
        assert each.parameters == size(student) <= most
        assert each.kept >= READABLE
        assert each.spec["width"] == {"ffn": each.ffn}
    assert [each for each in found if each.ffn == 1] == candidates(teacher, most, there)


def test_the_deepest_of_the_narrower_ones_is_tried_where_it_is_deeper() -> None:
    whole = [one(4, 0.5), one(3, 0.98), one(2, 1.0), one(1, 1.0)]
    deep, deeper = replace(one(4, 1.0), ffn=0.75), replace(one(5, 0.98), ffn=0.5)
    tried = finalists([deeper, whole[0], deep, *whole[1:]])
    assert [(each.layers, each.ffn) for each in tried] == [(5, 0.5), (4, 1.0), (3, 1.0), (2, 1.0)]
    assert replace(one(3, 1.0), ffn=0.75) not in finalists([replace(one(3, 1.0), ffn=0.75), *whole])
    assert finalists([deep]) == [deep]


@pytest.mark.slow
@pytest.mark.parametrize(("teacher", "fits"), [
    (hf.BertForSequenceClassification(hf.BertConfig(num_hidden_layers=2, **{**WIDE, "num_attention_heads": 4})), (2, 0.5)),
    (hf.ViTForImageClassification(hf.ViTConfig(num_hidden_layers=1, hidden_size=32, num_attention_heads=4,
                                               intermediate_size=64, image_size=8, patch_size=4)), (1, 0.5)),
], ids=lambda one: type(one).__name__)
def test_where_no_layers_fit_the_hidden_state_is_narrower(teacher: hf.PreTrainedModel, fits: tuple[int, float]) -> None:
    """Of a shallow teacher whose tokens cannot be cut, a third is to be had so alone."""
    most = size(teacher) // 3
    assert not candidates(teacher, most, None)
    found = candidates(teacher, most, None, narrower=True)
    assert found
    for each in found:
        student = by_width(by_layers(teacher, each.layers).model, Width(**each.width, rounds=1), first_units)
        assert each.parameters == size(student.of(by_layers(teacher, each.layers).model)) <= most
        assert each.spec["width"] == {"ffn": each.ffn, "heads": each.hidden, "hidden": each.hidden}
    assert fits in [(each.layers, each.hidden) for each in finalists(found)]


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> hf.PreTrainedModel:
    """Of two layers, whose narrower configs are found once."""
    teacher = hf.BertForSequenceClassification(hf.BertConfig(num_hidden_layers=2, **{**SHAPE, "num_attention_heads": 4}))
    found = module._cuts(teacher, 1, module.SLIMMER, *KINDS)
    monkeypatch.setattr(module, "_cuts", lambda _, __, ___, *kinds: found if kinds == KINDS else {})
    return teacher


@pytest.mark.slow
def test_a_narrower_hidden_state_is_taken_where_nothing_else_is_fast_or_small_enough(shallow: hf.PreTrainedModel) -> None:
    """Also without a limit of parameters; with nearly all tokens of the texts sooner than wider without them."""
    def slow(one: Candidate) -> bool:
        return one.hidden <= 0.5

    found = candidates(shallow, None, None, narrower=True, fast=slow)
    assert [(one.layers, one.hidden) for one in found] == [(2, 0.5), (1, 0.5)]
    assert not candidates(shallow, None, None, fast=slow)
    assert not candidates(shallow, None, None, narrower=True, fast=lambda one: False)
    wide = candidates(shallow, None, None, narrower=True, fast=lambda one: one.hidden == 0.75)[-1]
    for lacking, hidden in ((0, 0.75), (20, 0.5)):  # tokens that three quarters of the width have no room for
        most = wide.parameters - lacking * 12
        narrow = candidates(shallow, most, vocabulary(200, 175), narrower=True)[-1]
        assert (narrow.layers, narrow.hidden, narrow.tokens) == (1, hidden, None)


def test_of_a_smaller_hidden_state_the_deepest_of_each_width_is_tried() -> None:
    widths = ((4, 0.25), (3, 0.25), (2, 0.5), (1, 0.75))
    slim = [replace(one(layers, 1.0), ffn=share, hidden=share) for layers, share in widths]
    assert [(each.layers, each.hidden) for each in finalists(slim)] == [(4, 0.25), (2, 0.5), (1, 0.75)]


@pytest.mark.slow
def test_a_limit_that_nothing_fits_is_refused() -> None:
    with pytest.raises(CompatibilityError, match="no number of layers and tokens stays below the limit"):
        finalists(candidates(bert(), 10, vocabulary()))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "ways"), [("gemma4", [6, 5, 4, 3, 2]), ("nemotron-h", [4, 3])])
def test_numbers_of_layers_that_a_class_does_not_run_with_are_no_candidates(family: str, ways: list[int]) -> None:
    """Gemma 4's last layer attends to all: one alone is another than its first. Of few of Nemotron-H's none attends."""
    teacher = next(one for one in FAMILIES if one.name == family).build()
    assert [one.layers for one in candidates(teacher, None, None)] == ways
    assert [by_layers(teacher, layers).model.config.num_hidden_layers for layers in ways] == ways  # type: ignore[union-attr]
    fewer = {*range(1, ways[0])} - {*ways}
    for layers in fewer:
        with pytest.raises(CompatibilityError):
            by_layers(teacher, layers)
    assert candidates(teacher, size(teacher) * 9 // 10, None, narrower=True)


def albert() -> hf.PreTrainedModel:
    """All of its layers are one, whose weights they share."""
    return hf.AlbertForSequenceClassification(hf.AlbertConfig(
        num_hidden_layers=4, embedding_size=8, **{**SHAPE, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 2000}))


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0.7, 0.3])
def test_where_layers_cannot_be_cut_tokens_and_width_are(limit: float) -> None:
    teacher = albert()
    there, most = vocabulary(2000), int(limit * size(teacher))
    found = candidates(teacher, most, there, narrower=True)
    assert finalists(found)
    assert ["layers" in each.spec for each in found] == [False] * len(found)
    for each in found:
        student = with_layers(teacher, each.layers).model
        assert isinstance(student, hf.PreTrainedModel)
        if each.width:
            student = by_width(student, Width(**each.width, rounds=1), first_units).of(student)
        if each.tokens is not None:
            student = with_rows(student, range(each.tokens))
        assert each.parameters == size(student) <= most
        assert student.config.num_hidden_layers == 4
    assert any(each.tokens is not None for each in found)
    assert any(each.width for each in found)


def test_of_layers_in_parallel_lists_the_tokens_are_cut() -> None:
    teacher = hf.XLMForSequenceClassification(hf.XLMConfig(vocab_size=2000, emb_dim=16, n_layers=2, n_heads=2))
    found = candidates(teacher, int(0.6 * size(teacher)), vocabulary(2000))
    assert [list(each.spec) for each in found] == [["vocabulary"]]


@pytest.mark.slow
def test_what_cannot_be_cut_at_all_is_refused_by_name() -> None:
    teacher = hf.MobileNetV1ForImageClassification(hf.MobileNetV1Config(depth_multiplier=0.25, image_size=32))
    with pytest.raises(CompatibilityError, match=r"student: MobileNetV1ForImageClassification has no stack of layers to cut.*"
                                                 r"not enough can go to stay below the limit.*`config`"):
        candidates(teacher, size(teacher) // 2, None, narrower=True)


def test_without_a_limit_there_are_no_sizes_of_what_has_no_stack_of_layers() -> None:
    with pytest.raises(CompatibilityError, match=r"AlbertForSequenceClassification has no stack.*Say a limit"):
        candidates(albert(), None, vocabulary(2000))
