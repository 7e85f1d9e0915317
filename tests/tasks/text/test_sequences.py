"""Cutting, packing and batches of token sequences; and that packed documents do not see each other."""

import numpy as np
import pytest
import torch

from stilla.errors import CompatibilityError
from stilla.tasks.language.models import leak, refuse_leaks
from stilla.tasks.text.sequences import NO_ROW, Blocks, Pieces, cut, joined, pack, valid
from tests.tasks.tiny_lm import gpt2, llama


def pieces_of(*lengths: int) -> Pieces:
    draw = np.random.default_rng(0)
    return joined((one, index) for index, length in enumerate(lengths)
                  for one in cut(draw.integers(3, 300, length).astype(np.int32), 64))


@pytest.mark.parametrize("length", [2, 3, 4, 10, 11, 12, 40])
def test_every_token_but_the_first_is_predicted_once_however_a_text_is_cut(length: int) -> None:
    pieces = joined((piece, 0) for piece in cut(np.arange(length, dtype=np.int32), 4))
    _, labels = Blocks.of(pieces, None, pad=0).batch(range(len(pieces)))
    assert sorted(labels[labels != NO_ROW].tolist()) == list(range(1, length))
    assert pieces.lengths.max() <= 4


def test_texts_of_one_token_are_left_out() -> None:
    assert len(joined((piece, 0) for piece in cut(np.zeros(1, np.int32), 4))) == 0
    assert len(joined((piece, 0) for piece in cut(np.zeros(0, np.int32), 4))) == 0


def test_blocks_hold_every_piece_once_and_no_more_than_there_is_room_for() -> None:
    lengths = np.random.default_rng(1).integers(2, 33, 500)
    blocks = pack(lengths, 32)
    assert sorted(piece for block in blocks for piece in block) == list(range(500))
    assert max(sum(lengths[piece] for piece in block) for block in blocks) <= 32
    assert len(blocks) <= 11 / 9 * -(-int(lengths.sum()) // 32) + 1
    assert pack(lengths, 32) == blocks


def test_position_t_predicts_token_t_plus_1_within_its_piece_only() -> None:
    pieces = pieces_of(3, 4)
    inputs, labels = Blocks.of(pieces, 16, pad=2).batch([0])
    ids = inputs["input_ids"][0].tolist()
    assert labels[0].tolist() == [*ids[1:3], NO_ROW, *ids[4:7], NO_ROW]
    assert inputs["position_ids"][0].tolist() == [0, 1, 2, 0, 1, 2, 3]


def test_only_wanted_tokens_are_labels() -> None:
    wanted = np.array([False, False, True, True])
    pieces = joined([((np.array([5, 6, 7, 8], np.int32), wanted), 0)])
    _, labels = Blocks.of(pieces, None, pad=0).batch([0])
    assert labels.tolist() == [[NO_ROW, 7, 8, NO_ROW]]


def test_padding_is_known_in_packed_rows() -> None:
    blocks = Blocks.of(pieces_of(20, 10, 9, 3, 2), 24, pad=2)
    inputs, _ = blocks.batch(range(len(blocks)))
    assert valid(inputs["position_ids"]).sum(1).tolist() == blocks.lengths.tolist()


@pytest.mark.parametrize("model", [llama(), gpt2(), llama(attn_implementation="eager")],
                         ids=["llama", "gpt2", "llama-eager"])
def test_packed_logits_equal_unpacked_ones(model) -> None:
    model.config.use_cache = False
    pieces = pieces_of(9, 5, 12, 4, 7, 2, 30)
    packed, alone = Blocks.of(pieces, 32, pad=2), Blocks.of(pieces, None, pad=2)
    assert len(packed) < len(alone)
    with torch.no_grad():
        inputs, labels = packed.batch(range(len(packed)))
        together = model(**inputs).logits[labels != NO_ROW]
        order = [int(piece) for block in range(len(packed)) for piece in packed.members_of(block)]
        inputs, labels = alone.batch(order)
        apart = model(**inputs).logits[labels != NO_ROW]
    assert torch.allclose(together, apart, atol=2e-6)
    assert max(leak(model)[0], 1e-7) < 1e-5


def test_a_model_whose_packed_documents_see_each_other_is_refused() -> None:
    model = llama()
    model.config.use_cache = True
    apart, leaked = leak(model)
    assert apart > 0.5 * leaked > 1e-3
    with pytest.raises(CompatibilityError, match=r"see each other in 'm'.*data\.pack: false"):
        refuse_leaks(model, "m")
