"""Several threads at work: the same bits whoever takes which piece, and nothing of a thread's own that differs."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from stilla.objectives import Labels, Logits
from stilla.objectives.base import RowObjective
from stilla.rows import blocks, row_loss, row_measures
from stilla.rows.crew import InOrder, together
from tests.rows.setting import HEADS, Sides, in_pieces, sides, some_terms, top_k

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def gradients(given: Sides, teacher: Any = None) -> list[Tensor]:
    loss, sums = row_loss(some_terms(), given.student, teacher or given.teacher, given.labels, 0.0)
    return [loss.detach(), sums, *torch.autograd.grad(loss, given.leaves)]


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def in_other_orders(patch: pytest.MonkeyPatch) -> None:
    """Blocks take as long as chance will have it."""
    chance = random.Random(0)

    def late(*args: Any) -> Any:
        time.sleep(chance.choice([0, 0, 0.001, 0.004]))
        return blocks.compare(*args)

    patch.setattr("stilla.rows.engine.compare", late)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("head", ["plain", "all"])
def test_bits_are_the_same_whoever_takes_which_block(head: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, 20, 1)
    given = sides(rows=50, dtype=dtype, **HEADS[head])
    torch.set_num_threads(1)
    expected = gradients(given)
    in_other_orders(monkeypatch)
    for threads in (1, 2, 4, 4, 2):
        torch.set_num_threads(threads)
        assert same(gradients(given), expected), threads


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_are_the_same_with_any_number_of_threads_at_sizes_that_torch_would_cut(dtype: torch.dtype) -> None:
    given = sides(rows=200, dtype=dtype, classes=40_000, bias=True)
    forms = (None, top_k(given.teacher, 20, 2.0)) if dtype == torch.float32 else (None,)
    for form in forms:
        terms = [(Logits(temperature=2.0), 0.7), (Labels(), 0.3)]
        found = []
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            loss, sums = row_loss(terms, given.student, form or given.teacher, given.labels, 0.0)
            found.append([loss.detach(), sums, *torch.autograd.grad(loss, given.leaves)])
        assert same(found[1], found[0])
        assert same(found[2], found[0])


def test_measures_are_the_same_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, 9, 2)
    given = sides(rows=50)
    found = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        measured = row_measures(given.student, given.labels, given.teacher)
        assert measured.kl is not None
        found.append([measured.nll, measured.top1, measured.confidence, measured.kl])
    assert same(found[1], found[0])
    assert same(found[2], found[0])


def test_what_is_kept_of_an_answer_is_the_same_with_any_number_of_threads() -> None:
    from stilla.teachers.keeping import drawn, ranked

    logits, uniforms = 3 * torch.randn(100, 40_000), torch.rand(100, 12, dtype=torch.float64)
    kept = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        top, some = ranked(logits, 20, (1.0, 2.0)), drawn(logits, uniforms)
        kept.append([top.ids, top.below, top.odds, some.ids, some.counts, some.entropy])
    assert same(kept[1], kept[0])
    assert same(kept[2], kept[0])


def test_sums_are_added_in_the_order_of_the_rows() -> None:
    parts = list(torch.randn(40, 9))
    expected = torch.zeros(9)
    for part in parts:
        expected += part
    for seed in range(5):
        total = torch.zeros(9)
        summing, order = InOrder(total), list(range(40))
        random.Random(seed).shuffle(order)
        for place in order:
            summing.add(3 * place, 3 * place + 3, parts[place])
        assert torch.equal(total, expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_exception_reaches_the_caller_when_nobody_works_any_more(threads: int) -> None:
    torch.set_num_threads(threads)
    begun, done = [], []

    def piece(place: int) -> Callable[[], None]:
        def call() -> None:
            begun.append(place)
            if place == 4:
                raise ZeroDivisionError("the fifth")
            time.sleep(0.01)
            done.append(place)

        return call

    with pytest.raises(ZeroDivisionError, match="the fifth"):
        together([piece(place) for place in range(1000)], CPU)
    assert sorted(done) == sorted(set(begun) - {4})
    assert len(begun) < 1000
    together([piece(place) for place in range(1000, 1010)], CPU)
    assert set(range(1000, 1010)) <= set(done)


def test_a_wish_to_stop_reaches_the_caller() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    torch.set_num_threads(2)
    with pytest.raises(KeyboardInterrupt):
        together([interrupted] * 3, CPU)


def test_a_mistake_in_an_objective_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, 9, 1)

    class Mistaken(Labels):
        def losses_and_gradients(self, *given: Any) -> Any:
            raise IndexError("in a block")

    torch.set_num_threads(2)
    given = sides()
    for _ in range(2):
        with pytest.raises(IndexError, match="in a block"):
            row_loss([(Mistaken(), 1.0)], given.student, None, given.labels, 0.0)
    assert row_loss([(Labels(), 1.0)], given.student, None, given.labels, 0.0)[0] > 0


def found_in_threads() -> dict[int, tuple[Any, ...]]:
    """By thread, what torch does in it."""
    found: dict[int, tuple[Any, ...]] = {}
    all_there = threading.Barrier(2)

    def look() -> None:
        all_there.wait()
        found[threading.get_ident()] = (
            torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"), torch.get_default_dtype())

    together([look, look], CPU)
    return found


def test_threads_work_alone_without_gradients_and_in_the_callers_modes() -> None:
    torch.set_num_threads(2)
    me = threading.get_ident()
    with torch.enable_grad():
        found = found_in_threads()
    assert len(found) == 2
    assert me not in found
    assert set(found.values()) == {(1, False, False, False, torch.float32)}
    with torch.inference_mode():
        assert set(found_in_threads().values()) == {(1, False, True, False, torch.float32)}
    torch.set_default_dtype(torch.float64)
    try:
        assert set(found_in_threads().values()) == {(1, False, False, False, torch.float64)}
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == 2  # as before, and so is that of a thread that starts now
    others: list[int] = []
    thread = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert others == [2]


def test_autocast_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(RowObjective):  # its gradient is made by autograd, in the threads
        def losses(self, logits: Any, teacher: Any, labels: Any, progress: float) -> Any:
            return ((logits[:, None] @ teacher.logits[:, :, None]).flatten() / 10).square()

    in_pieces(monkeypatch, 9, 2)
    given = sides(dtype=torch.float32)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found = []
        for autocast in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss, _ = row_loss([(Own(), 1.0)], given.student, given.teacher, None, 0.0)
                found.append([loss, *torch.autograd.grad(loss, given.leaves)])
                measured = row_measures(given.student, given.labels, given.teacher)
                found[-1].append(measured.nll)
        assert same(found[1], found[0])


@pytest.mark.slow
def test_several_callers_do_not_wait_for_each_other_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, 9, 1)
    given = sides()
    torch.set_num_threads(2)
    expected, found = gradients(given), []

    def call(threads: int) -> None:
        torch.set_num_threads(threads)
        for _ in range(3):
            found.append(same(gradients(given), expected))

    callers = [threading.Thread(target=call, args=(threads,)) for threads in (2, 3, 2, 1)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert found == [True] * 12


def _in_a_child(given: Sides, expected: list[Tensor], answers: Any) -> None:
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(same(gradients(given), expected))
    answers.put(found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, 9, 1)
    given = sides()
    torch.set_num_threads(2)
    expected = gradients(given)  # the threads are there, and the child does not have them
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_in_a_child, args=(given, expected, answers))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert answers.get() == [True, True]
    assert same(gradients(given), expected)


class _Scored(torch.utils.data.Dataset[Tensor]):
    """Examples that are losses: what a teacher's answers may be made by in workers."""

    def __init__(self, given: Sides) -> None:
        self.given = given

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return row_loss(some_terms(), self.given.student, self.given.teacher, self.given.labels, 0.0)[1] * (index + 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_workers_of_a_data_loader_may_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, 9, 1)
    given = sides()
    torch.set_num_threads(2)
    _, sums, *_ = gradients(given)
    found = list(torch.utils.data.DataLoader(_Scored(given), batch_size=None, num_workers=2))
    assert same(found, [sums * (index + 1) for index in range(4)])


class _Model(torch.nn.Module):
    def __init__(self, given: Sides) -> None:
        super().__init__()
        self.hidden = torch.nn.Parameter(given.student.hidden.detach().clone())
        self.weight = torch.nn.Parameter(given.student.head.weight.detach().clone())

    def forward(self, given: Sides, first: int, last: int) -> Tensor:
        from stilla.signals import Head, Headed

        student = Headed(self.hidden, Head(self.weight)).rows(first, last)
        return row_loss(some_terms(), student, given.teacher.rows(first, last), given.labels[first:last], 0.0)[0]


def _process(rank: int, folder: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(2)
    given = sides(rows=60)
    model = torch.nn.parallel.DistributedDataParallel(_Model(given))
    for _ in range(3):
        model.zero_grad()
        model(given, 30 * rank, 30 * (rank + 1)).backward()
    torch.save([one.grad for one in model.parameters()], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_with_two_threads_each_equal_one(tmp_path: Any) -> None:
    torch.multiprocessing.spawn(_process, args=(str(tmp_path),), nprocs=2)
    given = sides(rows=60)
    model = _Model(given)
    model(given, 0, 60).backward()
    for rank in range(2):
        for one, parameter in zip(torch.load(tmp_path / f"{rank}.pt"), model.parameters(), strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(2 * one, parameter.grad, rtol=1e-12, atol=1e-14)
