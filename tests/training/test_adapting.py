"""A teacher that is adapted to its student: the gradient through the student's step, and trainings that make it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from transformers import TrainingArguments

from stilla import DistillationTrainer, Term
from stilla.errors import CompatibilityError
from stilla.objectives import DIST, DKD, Hidden, Labels, Logits, Saliency, Weights
from stilla.objectives.base import Objective
from stilla.recipe import Adapt, Pull
from stilla.signals import Batch, Dims
from stilla.tasks.base import Prepared
from stilla.teachers import LiveTeacher
from stilla.training.adapting import Adapting, along, moved
from stilla.training.distiller import Distiller
from stilla.training.quiz import adapting_problems, parted
from stilla.training.survey import WholeStep
from tests.equivalence import pictures
from tests.equivalence.reptile import Two, source
from tests.equivalence.setting import bert, distance, examples, losses, pad, weights
from tests.equivalence.test_resume import StopAt

RATE, CLASSES = 0.3, 3


@dataclass
class Processes:
    num_processes: int = 1
    process_index: int = 0

    def gather(self, tensor: Any) -> Any:
        return tensor


def batch_of(rows: Sequence[int], seed: int = 0) -> Batch:
    draw = np.random.default_rng(seed)
    inputs, labels = torch.from_numpy(draw.normal(size=(9, 3))), torch.from_numpy(draw.integers(0, CLASSES, 9))
    which = torch.tensor(rows)
    read = {"input_ids": inputs[which]}
    return Batch({"student": read, "teacher": read, "labels": labels[which]})


QUIZ = Prepared(list(range(4)), lambda rows: batch_of(rows, seed=7), np.arange(4))


def adapting(terms: Sequence[Term], student: nn.Module, teacher: nn.Module) -> Adapting:
    task = source(CLASSES, 2, 1).task
    distiller = Distiller(student, terms, task, student_dims=Dims(CLASSES), teacher_dims=Dims(CLASSES)).train()
    return Adapting(distiller, LiveTeacher(teacher, task), QUIZ, Adapt(batch_size=9), rate=RATE, seed=0)


def cut(made: Adapting, *parts: Sequence[int], processes: int = 1) -> list[Tensor]:
    """The teacher's gradient, of a step of nine rows of which these micro-batches are one process's."""
    counts = dict.fromkeys(made.task.counted, 9.0)
    whole = WholeStep(counts, [batch_of(part) for part in parts], Processes(processes))
    return made.gradients(whole, lambda batch: batch, 0.25, 3)


def derived_twice(student: Two, teacher: Two, kind: str) -> list[Tensor]:
    """dQ(S - λ ∇_S L(S, T)) / dT by autograd through autograd, of losses written out."""
    x, quiz = batch_of(range(9)), batch_of(range(4), seed=7)
    names = [name for name, _ in student.named_parameters()]
    ours = [one.detach().clone().requires_grad_() for one in student.parameters()]
    theirs = [one.detach().clone().requires_grad_() for one in teacher.parameters()]

    def answers(model: nn.Module, values: Sequence[Tensor], batch: Batch) -> Tensor:
        said: Tensor = functional_call(model, dict(zip(names, values, strict=True)), (batch.student["input_ids"],))["logits"]
        return said

    s, t = answers(student, ours, x), answers(teacher, theirs, x)
    learnt = (s - t).square().mean(-1).mean() if kind == "mse" else 4 * F.kl_div(
        (s / 2).log_softmax(-1), (t / 2).log_softmax(-1), log_target=True, reduction="batchmean")
    loss = 0.3 * F.cross_entropy(s, x.labels) + 0.7 * learnt
    steps = torch.autograd.grad(loss, ours, create_graph=True)
    pilot = [one - RATE * step for one, step in zip(ours, steps, strict=True)]
    asked = F.cross_entropy(answers(student, pilot, quiz), quiz.labels)
    return [one / RATE for one in torch.autograd.grad(asked, theirs)]


@pytest.mark.parametrize(("kind", "term"), [("kl", Logits(temperature=2.0)), ("mse", Logits(divergence="mse"))])
def test_the_teachers_gradient_is_that_through_the_students_step(kind: str, term: Objective) -> None:
    student, teacher = Two(CLASSES, 1), Two(CLASSES, 2)
    before = [one.clone() for one in student.parameters()]
    found = cut(adapting([Term(Labels(), weight=0.3), Term(term, weight=0.7)], student, teacher), range(9))
    expected = derived_twice(student, teacher, kind)
    assert max(one.abs().max() for one in expected) > 1e-3
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    assert all(torch.equal(one, was) for one, was in zip(student.parameters(), before, strict=True))
    assert all(one.grad is None for model in (student, teacher) for one in model.parameters())


def test_how_a_step_is_cut_leaves_the_teachers_gradient_as_it_is() -> None:
    terms = [Term(Labels(), weight=0.3), Term(Logits(), weight=0.4), Term(DKD(), weight={"linear": [1.0, 0.2]})]
    whole, parts = (cut(adapting(terms, Two(CLASSES, 1), Two(CLASSES, 2)), *some)
                    for some in ([range(9)], [range(4), range(4, 5), range(5, 9)]))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_two_processes_make_the_teachers_step_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a thread, exchanging what processes would."""
    posted: dict[int, Tensor] = {}
    barrier = threading.Barrier(2, timeout=60)

    def all_reduce(tensor: Tensor) -> None:
        posted[threading.get_ident()] = tensor.clone()
        barrier.wait()
        total = sum(posted[one] for one in sorted(posted))
        barrier.wait()
        tensor.copy_(total)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    terms = [Term(Labels(), weight=0.3), Term(Logits(), weight=0.7)]
    made = [adapting(terms, Two(CLASSES, 1), Two(CLASSES, 2)) for _ in range(3)]
    with ThreadPoolExecutor(2) as pool:
        shared = [one.result() for one in [pool.submit(cut, made[0], range(5), processes=2),
                                           pool.submit(cut, made[1], range(5, 8), range(8, 9), processes=2)]]
    for one, first, second in zip(cut(made[2], range(9)), *shared, strict=True):
        torch.testing.assert_close(one, first, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_the_difference_along_a_direction_is_wrong_by_the_square_of_its_reach() -> None:
    draw = torch.Generator().manual_seed(0)
    weight, way, other = (torch.randn(5, generator=draw, dtype=torch.float64) for _ in range(3))
    weight.requires_grad_()
    other.requires_grad_()

    def loss() -> Tensor:
        answer = torch.sin(weight)  # what is compared is an answer, not a weight
        return (answer * other).cos().sum()

    (slope,) = torch.autograd.grad(loss(), weight, create_graph=True)
    exact = torch.autograd.grad((slope * way).sum(), other)[0]
    wrong = [(torch.autograd.grad(along([weight], [way], loss, reach=reach), other)[0] - exact).norm().item()
             for reach in (0.1, 0.01)]
    assert wrong[0] / wrong[1] == pytest.approx(100, rel=0.1)
    assert weight.requires_grad
    with moved([weight], [way], 1e3):
        pass
    assert torch.equal(weight, torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def test_a_step_of_the_teacher_lowers_the_quiz_of_the_student_one_step_on() -> None:
    student, teacher = Two(CLASSES, 1), Two(CLASSES, 2)
    made = adapting([Term(Logits())], student, teacher)

    def asked() -> float:
        own = list(student.parameters())
        batch = batch_of(range(9))
        step = WholeStep({"rows": 9.0, "labelled": 9.0, "examples": 9.0}, [batch], Processes()).step(0.25)
        pilot = torch.autograd.grad(made._loss(batch, made.teacher.answer(batch), step), own)
        with moved(own, pilot, -RATE):
            return made._asked(lambda one: one, 3).item()

    before = asked()
    for weight, gradient in zip(made.weights, cut(made, range(9)), strict=True):
        with torch.no_grad():
            weight.sub_(gradient, alpha=0.1)
    assert asked() < before


def test_the_quiz_is_of_labelled_examples_whose_pieces_stay_together() -> None:
    keys = np.array([0, 0, 1, 1, 2, 3, 3, 4, 5, 6])
    whole = Prepared(list("abcdefghij"), list, keys, lengths=list(range(10)),  # type: ignore[arg-type]
                     unlabelled=keys > 4)
    rest, quiz = parted(whole, 0.4, seed=1)
    assert len({*quiz.keys.tolist()}) == 2
    assert not {*quiz.keys.tolist()} & {5, 6, *rest.keys.tolist()}
    for part in (rest, quiz):
        where = part.lengths
        assert where is not None
        assert [part.examples[row] for row in range(len(part))] == ["abcdefghij"[one] for one in where]
        assert part.keys.tolist() == keys[list(where)].tolist()
        assert part.unlabelled is not None
        assert part.unlabelled.tolist() == (keys[list(where)] > 4).tolist()
    with pytest.raises(CompatibilityError, match=r"adapt\.quiz: 0\.01 of 5 labelled examples is 0"):
        parted(whole, 0.01, seed=1)


@pytest.mark.parametrize(("term", "said"), [
    (Weights(), "`weights` holds the student to weights that would change"), (Saliency(), "`saliency` compares what answers"),
    (DIST(), "`dist` compares the rows of a whole step"), (Logits(divergence="hard"), "no term of the loss follows"),
    (Labels(), "no term of the loss follows")])
def test_terms_through_which_nothing_reaches_the_teacher_are_refused(term: Objective, said: str) -> None:
    task = source(CLASSES, 2, 1).task
    assert adapting_problems([Term(Logits())], task) == []
    assert any(said in problem for problem in adapting_problems([Term(term)], task))


def trainer(folder: Path, *, adapt: Adapt | None = None, teacher: Any = None, callbacks: Sequence[Any] = (), pull: Any = None,
            data: Any = None, seen: bool = False, terms: Sequence[Term] = (), **options: Any) -> DistillationTrainer:
    """`seen`: of pictures, by a student that normalises by the batch."""
    torch.manual_seed(0)
    student, theirs = (pictures.used(pictures.resnet()), pictures.vit()) if seen else (bert(16, 1), bert(16, 2))
    arguments = {"per_device_train_batch_size": 8, "max_steps": 6, "learning_rate": 5e-2, "optim": "sgd",
                 "save_strategy": "no", "logging_steps": 1, "use_cpu": True, "max_grad_norm": 0.0, **options}
    usual = [Term(Labels(), weight=0.3), Term(Logits(temperature={"linear": [4.0, 1.0]}))]
    return DistillationTrainer(
        student, teacher or theirs, terms=terms or usual,
        train_dataset=data or _examples(seen), data_collator=pictures.stacked if seen else pad, adapt=adapt,
        callbacks=callbacks, pull=pull,
        args=TrainingArguments(str(folder), report_to="none", disable_tqdm=True, remove_unused_columns=False, **arguments))


def _examples(seen: bool) -> Any:
    return pictures.examples() if seen else examples()


def taught(made: DistillationTrainer) -> dict[str, Tensor]:
    return made.teacher.model.state_dict()  # type: ignore[union-attr]


HOW = Adapt(learning_rate=1e-2, quiz=0.25, batch_size=4)


@pytest.mark.slow
def test_four_micro_batches_equal_one_batch(tmp_path: Path) -> None:
    one = trainer(tmp_path, adapt=HOW)
    four = trainer(tmp_path, adapt=HOW, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    plain = trainer(tmp_path)
    for made in (one, four, plain):
        made.train()
    assert distance(weights(one), weights(four)) < 2e-6
    # Adam divides by its own size what may be small
    assert distance(taught(one), taught(four)) < 2e-3
    assert distance(taught(one), taught(plain)) > 2e-2  # six steps of a rate of 1e-2
    assert len(losses(one)) == 6
    assert distance(weights(one), weights(plain)) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("seen", [False, True])
def test_a_teacher_that_hardly_moves_teaches_as_it_did(tmp_path: Path, seen: bool) -> None:
    """And looking ahead leaves no trace in the student, nor in its running statistics."""
    options: dict[str, Any] = {"seen": seen, "optim": "adamw_torch", "learning_rate": 1e-3}
    one = trainer(tmp_path, adapt=HOW.model_copy(update={"learning_rate": 1e-12}), **options)
    rest, _ = parted(one.reading.prepared(_examples(seen), training=True), HOW.quiz, one.reading.seed)
    other = trainer(tmp_path, data=_examples(seen).select(rest.keys.tolist()), **options)
    one.train()
    other.train()
    assert distance(weights(one), weights(other)) < 1e-6


@pytest.mark.slow
def test_hidden_states_reach_what_makes_them_and_nothing_above(tmp_path: Path) -> None:
    made = trainer(tmp_path, adapt=HOW, terms=[Term(Hidden())], max_steps=1)
    before = {name: value.clone() for name, value in taught(made).items()}
    made.train()
    moved_by = {name: (value - before[name]).abs().max().item() for name, value in taught(made).items()}
    assert moved_by["classifier.weight"] == 0
    assert moved_by["bert.encoder.layer.0.output.dense.weight"] == pytest.approx(HOW.learning_rate, rel=1e-2)  # Adam's first


@pytest.mark.slow
def test_a_resumed_training_is_the_whole_one(tmp_path: Path) -> None:
    options: dict[str, Any] = {"adapt": HOW, "optim": "adamw_torch", "learning_rate": 1e-3}
    whole = trainer(tmp_path / "whole", **options)
    whole.train()
    trainer(tmp_path / "parts", callbacks=[StopAt(3)], **options).train()
    again = trainer(tmp_path / "parts", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    assert distance(weights(whole), weights(again)) == 0
    assert distance(taught(whole), taught(again)) == 0
    trainer(tmp_path / "bare", callbacks=[StopAt(3)]).train()
    with pytest.raises(CompatibilityError, match=r"holds no adapted teacher \(adapted\.pt\)"):
        trainer(tmp_path / "bare", **options).train(resume_from_checkpoint=str(tmp_path / "bare" / "checkpoint-3"))


def test_what_cannot_be_adapted_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="a pull goes towards weights that would change"):
        trainer(tmp_path, adapt=HOW, pull=Pull(share=0.1))
    with pytest.raises(CompatibilityError, match=r"the teacher's weights are torch\.bfloat16"):
        trainer(tmp_path, adapt=HOW, teacher=bert(16, 2).bfloat16())

    class Far:
        def __call__(self, batch: Any) -> Any: ...

    with pytest.raises(CompatibilityError, match="the teacher is not here, only its answers"):
        trainer(tmp_path, adapt=HOW, teacher=Far())
