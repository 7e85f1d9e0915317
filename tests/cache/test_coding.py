"""What the coders keep: exactly what each form promises, in the bytes that were promised."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from stilla.cache import DenseCoder, HiddenCoder, Ranked, SamplesCoder, StatesCoder, TopKCoder
from stilla.cache.coding import coder_from
from stilla.errors import CacheError
from stilla.teachers.keeping import drawn, largest, ranked, uniforms_of

QWEN = 151_936


def logits_of(rows: int, classes: int, *, peak: float = 1.0, seed: int = 0) -> Tensor:
    """Like a language model's: Zipf's law over the classes, shuffled, with noise; `peak` sharpens it."""
    generator = torch.Generator().manual_seed(seed)
    zipf = -torch.log(torch.arange(1.0, classes + 1))[torch.randperm(classes, generator=generator)]
    return peak * (zipf + torch.randn(rows, classes, generator=generator))


def split(rows: int, parts: int) -> list[tuple[int, int]]:
    ends = [rows * part // parts for part in range(parts + 1)]
    return list(pairwise(ends))


def round_trip(coder, kept, rows: int, parts: int = 3):  # type: ignore[no-untyped-def]
    pieces = split(rows, parts)
    blobs = [memoryview(coder.encode(kept, *piece)) for piece in pieces]
    return coder.decode(blobs, [end - start for start, end in pieces])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dense_and_hidden_come_back_to_the_bit(dtype: str) -> None:
    values = logits_of(7, 11).to(getattr(torch, dtype))
    assert torch.equal(round_trip(DenseCoder(11, dtype), values, 7), values)
    assert torch.equal(round_trip(HiddenCoder(11, dtype), values, 7), values)
    assert torch.equal(round_trip(HiddenCoder(11), values.float(), 7), values.bfloat16())


def test_states_come_back_by_name() -> None:
    states = {"layers/3": torch.randn(9, 4), "layers/10": torch.randn(9, 4), "pooled": torch.randn(9, 6)}
    coder = StatesCoder({name: one.shape[1] for name, one in states.items()}, "float32")
    found = round_trip(coder, states, 9, parts=4)
    assert found.keys() == states.keys()
    assert all(torch.equal(found[name], states[name]) for name in states)


@pytest.mark.parametrize("classes", [2**17 - 1, 2**17, 2**17 + 1, QWEN, 262_144, 60, 51])
def test_top_k_keeps_ids_and_masses_exactly_and_values_to_their_bound(classes: int) -> None:
    logits = logits_of(6, classes, peak=2.0)
    kept = ranked(logits, 50, (1.0, 2.0))
    coder = TopKCoder(classes, 50, (1.0, 2.0))
    found = round_trip(coder, kept, 6)
    assert torch.equal(found.ids, kept.ids)
    assert torch.equal(found.odds, kept.odds)
    bound = kept.below.amax(-1, keepdim=True) / 508
    assert ((found.below - kept.below).abs() <= bound + 1e-6).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_the_distribution_at_a_temperature_is_that_of_all_classes(temperature: float) -> None:
    logits = logits_of(16, 5000, peak=2.0).double()
    found = round_trip(TopKCoder(5000, 50, (0.5, 1.0, 2.0, 8.0)), ranked(logits, 50, (0.5, 1.0, 2.0, 8.0)), 16)
    said = found.at(temperature, (0.5, 1.0, 2.0, 8.0))
    true = torch.log_softmax(logits / temperature, -1)
    outside = true.exp().scatter(-1, said.ids, 0).sum(-1).log()
    torch.testing.assert_close(said.log_tail.double(), outside, atol=1e-5, rtol=1e-5)
    error = (said.log_probs.double() - true.gather(-1, said.ids)).abs()
    assert (error <= found.below.amax(-1, keepdim=True) / 254 / temperature + 1e-5).all()
    total = said.log_probs.double().exp().sum(-1) + said.log_tail.double().exp()
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)
    kl = (true.gather(-1, said.ids).exp() * (true.gather(-1, said.ids) - said.log_probs)).sum(-1)
    assert kl.abs().max() < 1e-3 / temperature


def test_a_tiny_mass_outside_keeps_its_digits() -> None:
    logits = torch.cat([torch.tensor([[40.0, 38.0]]), torch.zeros(1, 1000)], -1)
    said = round_trip(TopKCoder(1002, 2), ranked(logits, 2, (1.0,)), 1, parts=1).at(1.0, (1.0,))
    true = math.log(1000) - math.log(math.exp(40) + math.exp(38) + 1000)
    assert said.log_tail.item() == pytest.approx(true, rel=1e-6)


def test_all_classes_leave_nothing_outside() -> None:
    logits = logits_of(4, 20)
    said = round_trip(TopKCoder(20, 20), ranked(logits, 20, (1.0,)), 4).at(1.0, (1.0,))
    assert (said.log_tail == -torch.inf).all()
    torch.testing.assert_close(said.log_probs.exp().sum(-1), torch.ones(4))


def test_classes_without_mass_stay_without() -> None:
    logits = torch.full((2, 100), -torch.inf)
    logits[:, [3, 50, 97]] = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    found = round_trip(TopKCoder(100, 5), ranked(logits, 5, (1.0,)), 2)
    said = found.at(1.0, (1.0,))
    assert (said.log_probs.exp().sum(-1) - 1).abs().max() < 1e-6
    assert ((said.log_probs > -torch.inf).sum(-1) == 3).all()
    assert (said.log_tail == -torch.inf).all()


def test_a_temperature_that_was_not_stored_is_refused_with_the_way_out() -> None:
    kept = ranked(logits_of(2, 100), 5, (1.0, 2.0))
    with pytest.raises(CacheError, match=r"got temperature 4; .* at 1 or 2, .*cache\.temperatures"):
        kept.at(4.0, (1.0, 2.0))


@pytest.mark.parametrize("classes", [2**17 + 1, QWEN, 40])
@pytest.mark.parametrize("samples", [1, 50])
def test_samples_come_back_to_the_last_draw(classes: int, samples: int) -> None:
    logits = logits_of(9, classes, peak=1.5)
    kept = drawn(logits, uniforms_of(b"k" * 16, 9, samples, seed=0))
    found = round_trip(SamplesCoder(classes, samples), kept, 9)
    width = kept.ids.shape[1]
    assert torch.equal(found.ids[:, :width], kept.ids)
    assert torch.equal(found.counts[:, :width], kept.counts)
    assert torch.equal(found.entropy, kept.entropy)
    assert (found.counts.sum(-1) == samples).all()


def test_sampling_is_unbiased_and_no_noisier_than_independent_draws() -> None:
    logits = logits_of(1, 300, peak=1.5).expand(2000, -1)
    p = torch.softmax(logits[0], -1).double()
    draws = drawn(logits, uniforms_of(b"u" * 16, 2000, 10, seed=0))
    frequencies = torch.zeros(2000, 300, dtype=torch.float64).scatter_add_(1, draws.ids, draws.counts.double()) / 10
    deviation = (frequencies.mean(0) - p).abs() / (p * (1 - p) / 20_000).sqrt()
    assert deviation.max() < 4.5
    assert (frequencies - p).square().sum(-1).mean() <= 1.02 * (1 - p.square().sum()) / 10


def test_the_entropy_is_that_of_all_classes() -> None:
    logits = logits_of(5, 3000, peak=2.0)
    logits[:, 7] = -torch.inf
    p = torch.softmax(logits.double(), -1)
    true = -(p * torch.where(p > 0, p.log(), 0)).sum(-1)
    found = drawn(logits, uniforms_of(b"e" * 16, 5, 20, seed=0))
    torch.testing.assert_close(found.entropy.double(), true, atol=1e-5, rtol=1e-5)
    assert not (found.ids == 7).any()


def test_draws_depend_on_the_content_and_the_seed_alone() -> None:
    one = uniforms_of(b"a" * 16, 4, 10, seed=0)
    assert torch.equal(one, uniforms_of(b"a" * 16, 4, 10, seed=0))
    assert not torch.equal(one, uniforms_of(b"b" * 16, 4, 10, seed=0))
    assert not torch.equal(one, uniforms_of(b"a" * 16, 4, 10, seed=1))


@pytest.mark.parametrize("classes", [5, 127, 128, 129, 1000, 12_800, 30_522])
def test_the_largest_are_those_of_a_full_search(classes: int) -> None:
    logits = logits_of(5, classes)
    for k in {1, min(5, classes), min(50, classes)}:
        values, ids = largest(logits, k)
        assert torch.equal(values.sort(-1).values, logits.topk(k).values.sort(-1).values)
        assert torch.equal(logits.gather(-1, ids), values)
        assert all(len(set(row)) == k for row in ids.tolist())


def language_model(unique: int) -> Tensor:
    """24 rows over Qwen's vocabulary from which 50 draws give about so many different ids."""
    return logits_of(24, QWEN, peak={20: 1.4, 12: 1.75}[unique])


def test_top_50_of_a_large_vocabulary_take_less_than_165_bytes_a_token() -> None:
    logits = language_model(unique=20)
    coder = TopKCoder(QWEN, 50, (1.0,))
    stored = len(coder.encode(ranked(logits, 50, (1.0,)), 0, 24)) / 24
    assert stored <= 145
    assert coder.row_bytes() == pytest.approx(stored, rel=0.02)


def test_about_12_sampled_ids_with_the_entropy_take_less_than_40_bytes_a_token() -> None:
    logits = language_model(unique=12)
    kept = drawn(logits, uniforms_of(b"q" * 16, 24, 50, seed=0))
    assert 11 <= (kept.counts > 0).sum(-1).float().mean() <= 13
    coder = SamplesCoder(QWEN, 50)
    stored = len(coder.encode(kept, 0, 24)) / 24
    assert stored <= 36
    assert coder.row_bytes() == pytest.approx(stored, rel=0.1)


def test_eight_bits_cost_less_than_bfloat16_would() -> None:
    logits = language_model(unique=20)
    kept = ranked(logits, 50, (1.0,))
    exact, stored = kept.at(1.0, (1.0,)), round_trip(TopKCoder(QWEN, 50), kept, 24).at(1.0, (1.0,))
    kl = (exact.log_probs.exp() * (exact.log_probs - stored.log_probs)).sum(-1)
    assert kl.max() < 1.5e-4
    assert kl.min() > -1e-6


def test_what_does_not_fit_the_form_is_refused() -> None:
    with pytest.raises(CacheError, match="rows of 5"):
        DenseCoder(5).encode(torch.zeros(2, 6), 0, 2)
    with pytest.raises(CacheError, match="expected 40"):
        DenseCoder(5).decode([memoryview(bytes(39))], [2])
    with pytest.raises(CacheError, match="sorted ids"):
        TopKCoder(9, 2).encode(Ranked(torch.tensor([[3, 3]]), torch.zeros(1, 2), torch.zeros(1, 1)), 0, 1)
    with pytest.raises(CacheError, match="for a segment"):
        TopKCoder(9, 2).decode([memoryview(bytes(7))], [1])
    for content in (b"", bytes(11), b"\xff" * 11):
        with pytest.raises(CacheError):
            SamplesCoder(9, 50).decode([memoryview(content)], [1])


def test_coders_are_read_back_from_the_manifest() -> None:
    for coder in (DenseCoder(3, "bfloat16"), HiddenCoder(8), TopKCoder(9, 2, (1.0, 2.0)), SamplesCoder(9, 50),
                  StatesCoder({"layers/1": 4})):
        assert coder_from(coder.plain()) == coder
    with pytest.raises(CacheError, match="knows dense, hidden"):
        coder_from({"kind": "parquet"})


def test_states_that_are_not_pooled_are_described_as_before_there_was_pooling() -> None:
    """The description is part of a cache's name: another one would make every cache of states a stranger."""
    coder = StatesCoder({"layers/1": 4})
    assert coder.plain() == {"kind": "states", "widths": {"layers/1": 4}, "dtype": "bfloat16"}
    assert coder_from(coder.plain()) == coder
    pooled = StatesCoder({"layers/1": 4}, pooling="mean")
    assert coder_from(pooled.plain()) == pooled != coder
