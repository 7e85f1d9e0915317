"""What a teacher said comes back from its cache as it was, to what each form promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stilla.cache import Store
from stilla.cache.care import verify
from stilla.errors import CacheError
from stilla.signals import Batch, Headed, Samples, TopK
from stilla.tasks.base import Prepared
from stilla.teachers import CachedTeacher, CapturingTeacher, Keep, LiveTeacher, capture
from stilla.training.plain import task_of
from tests.equivalence.setting import bert, examples, pad
from tests.teachers.speakers import VOCABULARY, LanguageModel, language_batch

FINGERPRINT = {"teacher": "7e4c"}
TEXTS = ([5, 6, 7, 8, 9], [30, 31, 32], [5, 6, 7, 40])


def classifier() -> LiveTeacher:
    torch.manual_seed(0)
    model = bert(32, 4)
    return LiveTeacher(model, task_of(model, None), stacks=True)


def classifier_batches() -> list[Batch]:
    rows = examples(24)
    batches = []
    for start in range(0, 24, 8):
        inputs = pad([rows[index] for index in range(start, start + 8)])
        labels = inputs.pop("labels")
        batches.append(Batch(student=inputs, teacher=inputs, labels=labels))
    return batches


def opened(path: Path, task: Any, **options: Any) -> CachedTeacher:
    """An untrained teacher predicts nothing, wherever its answers stand."""
    return CachedTeacher(path, task, **options, check_alignment=False)


def capturing(path: Path, live: Any, keep: Keep, **options: Any) -> CapturingTeacher:
    return CapturingTeacher(live, live.task, path, keep, FINGERPRINT, **options)


def captured(path: Path, live: Any, keep: Keep, batches: list[Batch], **options: Any) -> list[Any]:
    teacher = capturing(path, live, keep, **options)
    said = [teacher(batch) for batch in batches]
    teacher.close()
    return said


def test_dense_float32_comes_back_to_the_bit(tmp_path: Path) -> None:
    live, batches = classifier(), classifier_batches()
    first = captured(tmp_path, live, Keep("dense"), batches)
    cached = opened(tmp_path, live.task, fingerprint=FINGERPRINT)
    for batch, now in zip(batches, first, strict=True):
        expected = live(batch).logits.logits
        assert torch.equal(now.logits.logits, expected)
        assert torch.equal(cached(batch).logits.logits, expected)
    assert cached.dims().classes == 3


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dense_in_half_the_bytes_is_rounded_and_nothing_else(dtype: str, tmp_path: Path) -> None:
    live, batches = classifier(), classifier_batches()
    captured(tmp_path, live, Keep("dense", dtype=dtype), batches)
    found = opened(tmp_path, live.task)(batches[0]).logits.logits
    assert torch.equal(found, live(batches[0]).logits.logits.to(getattr(torch, dtype)))


def test_an_example_is_found_in_whatever_batch_it_stands(tmp_path: Path) -> None:
    live, batches = classifier(), classifier_batches()
    captured(tmp_path, live, Keep("dense"), batches)
    rows = examples(24)
    mixed = pad([rows[index] for index in (23, 0, 11, 4)])
    labels = mixed.pop("labels")
    said = opened(tmp_path, live.task)(Batch(student=mixed, teacher=mixed, labels=labels)).logits
    torch.testing.assert_close(said.logits, live(Batch(student=mixed, teacher=mixed, labels=labels)).logits.logits,
                               atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["mean", "first", "last"])
def test_embeddings_come_back_one_per_example(tmp_path: Path, how: Any) -> None:
    live, batches = classifier(), classifier_batches()
    keep = Keep("dense", states={"layers": (2, 4)}, states_dtype="float32", pooling=how)
    first = captured(tmp_path, live, keep, batches)
    cached = opened(tmp_path, live.task)
    for batch, now in zip(batches, first, strict=True):
        truly, read = live(batch).stacks["layers"], cached(batch).stacks["layers"]
        for index in (2, 4):
            assert read.hidden_states[index].shape == (len(batch.labels), 1, 32)
            for said in (read, now.stacks["layers"]):
                torch.testing.assert_close(said.pooled(index, how), truly.pooled(index, how), atol=1e-6, rtol=1e-6)
    assert read.hidden_states[1].is_meta
    coder = Store(tmp_path).manifest.states
    assert coder is not None
    assert coder.pooling == how
    with pytest.raises(CacheError, match=f"pooling: {how} -> nothing"):
        capturing(tmp_path, live, replace(keep, pooling=None))


def test_chosen_hidden_states_come_back_in_their_places(tmp_path: Path) -> None:
    live, batches = classifier(), classifier_batches()
    keep = Keep("dense", states={"layers": (2, 4)}, states_dtype="float32")
    first = captured(tmp_path, live, keep, batches)
    cached = opened(tmp_path, live.task)
    for batch, now in zip(batches, first, strict=True):
        truly, read = live(batch).stacks["layers"], cached(batch).stacks["layers"]
        assert torch.equal(read.mask, truly.mask)
        assert len(read.hidden_states) == 5
        for index in (2, 4):
            expected = torch.where(truly.mask[..., None], truly.hidden_states[index], 0)
            assert torch.equal(read.hidden_states[index], expected)
            assert torch.equal(now.stacks["layers"].hidden_states[index], expected)
    assert read.hidden_states[1].is_meta
    with pytest.raises(CacheError, match=r"holds the hidden states \['layers/2', 'layers/4'\], not \['layers/1'\]"):
        opened(tmp_path, live.task, states={"layers": (1, 2)})
    assert cached.dims().widths == {"layers": (32,) * 5}


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [{"layers": (4,)}, {}])
def test_states_of_more_layers_serve_who_compares_fewer(tmp_path: Path, wanted: dict[str, tuple[int, ...]]) -> None:
    live, batches = classifier(), classifier_batches()
    keep = Keep("dense", states={"layers": (2, 4)}, states_dtype="float32")
    captured(tmp_path, live, keep, batches[:1])
    manifest = (tmp_path / "cache.json").read_bytes()
    fewer = capturing(tmp_path, live, replace(keep, states=wanted))
    known, fresh = fewer(batches[0]), fewer(batches[1])
    assert fewer.answered == len(batches[1].labels)
    fewer.close()
    assert (tmp_path / "cache.json").read_bytes() == manifest
    cached = opened(tmp_path, live.task, states={"layers": (2, 4)})  # what was added is whole
    for batch, said in zip(batches[:2], (known, fresh), strict=True):
        truly = live(batch).stacks["layers"]
        for index in (2, 4):
            expected = torch.where(truly.mask[..., None], truly.hidden_states[index], 0)
            torch.testing.assert_close(cached(batch).stacks["layers"].hidden_states[index], expected)
            torch.testing.assert_close(said.stacks["layers"].hidden_states[index], expected)
    with pytest.raises(CacheError, match="hidden states: layers/2, layers/4 -> layers/1, layers/4"):
        capturing(tmp_path, live, replace(keep, states={"layers": (1, 4)}))


def test_hidden_rows_and_the_head_give_the_logits_to_the_bit(tmp_path: Path) -> None:
    live, batch = LanguageModel(), language_batch(*TEXTS)
    first = captured(tmp_path, live, Keep("hidden"), [batch])[0]
    expected = live(batch).logits.first(VOCABULARY)
    for said in (first, opened(tmp_path, live.task)(batch)):
        assert torch.equal(said.logits.hidden, expected.hidden)
        assert torch.equal(said.logits.dense().logits, expected.dense().logits)


def test_hidden_rows_in_bfloat16_are_multiplied_in_the_teachers_precision(tmp_path: Path) -> None:
    live, batch = LanguageModel(), language_batch(*TEXTS)
    first = captured(tmp_path, live, Keep("hidden", dtype="bfloat16"), [batch])[0]
    read = opened(tmp_path, live.task)(batch)
    expected = live(batch).logits
    assert isinstance(read.logits, Headed)
    assert read.logits.head.classes == VOCABULARY  # without the padding of the vocabulary
    assert torch.equal(read.logits.hidden, expected.hidden.bfloat16().float())
    assert torch.equal(first.logits.hidden, read.logits.hidden)
    exact, found = expected.first(VOCABULARY).dense().logits, read.logits.dense().logits
    assert (exact - found).abs().max() < 0.02 * exact.abs().max()


def test_top_k_comes_back_to_its_bound(tmp_path: Path) -> None:
    live, batch = LanguageModel(), language_batch(*TEXTS)
    captured(tmp_path, live, Keep("top_k", k=20, temperatures=(1.0, 2.0)), [batch])
    truth = live(batch).logits.first(VOCABULARY).dense().logits
    for temperature in (1.0, 2.0):
        said = opened(tmp_path, live.task, temperature=temperature)(batch).logits
        assert isinstance(said, TopK)
        assert said.temperature == temperature
        assert said.ids.max() < VOCABULARY
        log_p = torch.log_softmax(truth / temperature, -1)
        assert torch.equal(said.ids, log_p.topk(20).indices.sort(-1).values)
        inside = log_p.gather(-1, said.ids)
        spread = inside.amax(-1, keepdim=True) - inside.amin(-1, keepdim=True)
        assert ((said.log_probs - inside).abs() <= spread / 254 + 1e-5).all()
        torch.testing.assert_close(said.log_tail, log_p.exp().scatter(-1, said.ids, 0).sum(-1).log(), atol=1e-4, rtol=1e-4)


def test_a_temperature_that_was_not_captured_is_refused_with_the_way_out(tmp_path: Path) -> None:
    live = LanguageModel()
    captured(tmp_path, live, Keep("top_k", k=20, temperatures=(1.0, 2.0)), [language_batch(*TEXTS)])
    with pytest.raises(CacheError, match=r"temperature 4; .* at 1 or 2, .*cache\.temperatures"):
        opened(tmp_path, live.task, temperature=4.0)


def test_samples_come_back_as_they_were_drawn(tmp_path: Path) -> None:
    live, batch = LanguageModel(), language_batch(*TEXTS)
    first = captured(tmp_path, live, Keep("samples", samples=30), [batch])[0].logits
    read = opened(tmp_path, live.task)(batch).logits
    assert isinstance(read, Samples)
    assert torch.equal(first.ids, read.ids)
    assert torch.equal(first.counts, read.counts)
    assert (read.counts.sum(-1) == 30).all()
    p = torch.softmax(live(batch).logits.first(VOCABULARY).dense().logits, -1)
    torch.testing.assert_close(read.entropy, -(p * p.log()).sum(-1), atol=1e-4, rtol=1e-4)


def test_samples_of_a_text_are_the_same_in_whatever_batch_it_stands(tmp_path: Path) -> None:
    live = LanguageModel()
    together = captured(tmp_path / "a", live, Keep("samples"), [language_batch(*TEXTS)])[0].logits
    captured(tmp_path / "b", live, Keep("samples"), [language_batch(TEXTS[2])])
    alone = opened(tmp_path / "b", live.task)(language_batch(TEXTS[2])).logits
    width = alone.ids.shape[1]
    assert torch.equal(together.ids[-3:, :width] * (together.counts[-3:, :width] > 0), alone.ids)
    assert torch.equal(together.counts[-3:, :width], alone.counts)


def test_only_what_is_missing_is_asked(tmp_path: Path) -> None:
    live = LanguageModel()
    captured(tmp_path, live, Keep("top_k", k=5), [language_batch(*TEXTS[:2])])
    assert live.asked == 1
    teacher = capturing(tmp_path, live, Keep("top_k", k=5))
    teacher(language_batch(TEXTS[1], TEXTS[0]))
    assert (live.asked, teacher.answered) == (1, 0)
    teacher(language_batch(*TEXTS))
    teacher(language_batch(TEXTS[2]))
    assert (live.asked, teacher.answered) == (2, 1)
    teacher.close()
    assert len(Store(tmp_path)) == 3


def test_filled_shards_are_read_at_once(tmp_path: Path) -> None:
    live = classifier()
    teacher = capturing(tmp_path, live, Keep("dense"), shard_segments=3)
    first = [teacher(batch).logits.logits for batch in classifier_batches()]
    assert teacher.answered == 24
    assert len(list(tmp_path.glob("*.arrow"))) == 8
    live.model = None
    assert all(torch.equal(one, teacher(batch).logits.logits)
               for one, batch in zip(first, classifier_batches(), strict=True))
    teacher.close()


def test_what_is_lacking_is_counted(tmp_path: Path) -> None:
    live = LanguageModel()
    captured(tmp_path, live, Keep("dense"), [language_batch(*TEXTS[:2])])
    with pytest.raises(CacheError, match=r"lacks 1 of the 3 pieces of this batch .* `stilla capture`"):
        opened(tmp_path, live.task)(language_batch(*TEXTS))


def test_rows_of_another_task_are_refused(tmp_path: Path) -> None:
    live = LanguageModel()
    captured(tmp_path, live, Keep("dense"), [language_batch(TEXTS[0])])
    other = opened(tmp_path, live.task)
    batch = language_batch(TEXTS[0])

    class Fewer(type(live.task)):  # type: ignore[misc]
        def segments(self, batch: Batch) -> Any:
            return [replace(one, rows=slice(0, 2)) for one in super().segments(batch)]

    other.task = Fewer(classes=VOCABULARY)
    with pytest.raises(CacheError, match="4 rows of a piece of the batch that has 2"):
        other(batch)


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "difference"), [
    (Keep("dense"), "kind: top_k -> dense"), (Keep("top_k", k=7), "k: 5 -> 7"),
    (Keep("top_k", k=5, temperatures=(1.0, 3.0)), r"temperatures: 1\.0 -> 1\.0, 3\.0"),
    (Keep("top_k", k=5, states={"layers": (1,)}), "hidden states: nothing -> layers/1")])
def test_another_form_in_the_same_place_is_refused(keep: Keep, difference: str, tmp_path: Path) -> None:
    live = LanguageModel()
    captured(tmp_path, live, Keep("top_k", k=5), [language_batch(*TEXTS)])
    with pytest.raises(CacheError, match=f"What differs:\n  {difference}"):
        capturing(tmp_path, live, keep)


def test_another_teacher_in_the_same_place_is_refused(tmp_path: Path) -> None:
    live = LanguageModel()
    captured(tmp_path, live, Keep("dense"), [language_batch(*TEXTS)])
    with pytest.raises(CacheError, match="teacher: 7e4c -> 0000"):
        opened(tmp_path, live.task, fingerprint={"teacher": "0000"})
    with pytest.raises(CacheError, match="teacher: 7e4c -> 0000"):
        CapturingTeacher(live, live.task, tmp_path, Keep("dense"), {"teacher": "0000"})


def test_a_damaged_or_missing_head_is_named(tmp_path: Path) -> None:
    live = LanguageModel()
    captured(tmp_path, live, Keep("hidden"), [language_batch(*TEXTS)])
    (head,) = tmp_path.glob("head-*.safetensors")
    whole = head.read_bytes()
    head.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert dict(verify(tmp_path))[head.name]
    with pytest.raises(CacheError, match=f"{head.name} does not match its checksum"):
        opened(tmp_path, live.task)
    head.unlink()
    assert "missing" in str(dict(verify(tmp_path))[head.name])
    with pytest.raises(CacheError, match=f"{head.name} is missing"):
        opened(tmp_path, live.task)


def test_hidden_needs_a_head(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="use form: dense"):
        captured(tmp_path, classifier(), Keep("hidden"), classifier_batches())


def test_two_runs_share_a_place_and_a_second_capture_is_refused(tmp_path: Path) -> None:
    live = LanguageModel()
    first = capturing(tmp_path, live, Keep("dense"), shared=True)
    second = capturing(tmp_path, live, Keep("dense"), shared=True)
    alone = capturing(tmp_path, live, Keep("dense"))
    first(language_batch(TEXTS[0]))
    with pytest.raises(CacheError, match="another process is writing"):
        alone(language_batch(TEXTS[1]))
    second(language_batch(TEXTS[0], TEXTS[1]))
    first.close()
    second.close()
    assert len(Store(tmp_path)) == 2
    alone = capturing(tmp_path, live, Keep("dense"))
    alone(language_batch(TEXTS[1]))  # a complete cache needs no writer
    third = capturing(tmp_path, live, Keep("dense"))
    third(language_batch(TEXTS[2]))
    alone(language_batch(TEXTS[0]))
    third.close()


def prepared(texts: list[list[int]], *, random: bool = False) -> Prepared:
    return Prepared(texts, lambda some: language_batch(*some), np.arange(len(texts)), [len(text) for text in texts],
                    (lambda epoch: None) if random else None)


def some_texts() -> list[list[int]]:
    generator = np.random.default_rng(0)
    return [generator.integers(3, VOCABULARY, generator.integers(2, 12)).tolist() for _ in range(50)]


def content(path: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in sorted(path.iterdir()) if not one.name.endswith(".lock")}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dense", "hidden", "top_k", "samples"])
def test_a_capture_that_was_killed_continues_to_the_same_bytes(form: Any, tmp_path: Path) -> None:
    live, data = LanguageModel(), prepared(some_texts())

    def run(path: Path, stop: int | None = None) -> int:
        teacher = capturing(path, live, Keep(form, k=10), shard_segments=7)
        for done, _ in enumerate(capture(teacher, data, batch_size=4, device=torch.device("cpu"))):
            if done == stop:
                teacher._writer.close(flush=False)  # what a kill leaves: what waits for its shard is gone
                return teacher.answered
        teacher.close()
        return teacher.answered

    assert run(tmp_path / "whole") == 50
    for stop in (0, 3, 7, 11):
        run(tmp_path / f"stopped-{stop}", stop)
        asked = live.asked
        run(tmp_path / f"stopped-{stop}")
        assert content(tmp_path / f"stopped-{stop}") == content(tmp_path / "whole")
        assert live.asked - asked <= 13 - max(0, 4 * stop - 7) // 4
    cached = opened(tmp_path / "whole", live.task)
    assert len(cached(data.collate(some_texts()[:9])).logits) == sum(len(text) - 1 for text in some_texts()[:9])


def test_what_changes_at_random_is_not_captured(tmp_path: Path) -> None:
    live = LanguageModel()
    with pytest.raises(CacheError, match=r"change at random in every epoch.*data\.augment: none"):
        list(capture(capturing(tmp_path, live, Keep("dense")), prepared(some_texts(), random=True), batch_size=4,
                     device=torch.device("cpu")))
