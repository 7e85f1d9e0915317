"""A person's datasets and collator as batches: the same examples for both models, each with the inputs that it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Self

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    SequenceFeatureExtractor,
    default_data_collator,
)

from stilla.errors import CompatibilityError, DataError, all_of
from stilla.signals import Batch
from stilla.tasks.base import Prepared, Task
from stilla.tasks.shared.classification import Positions
from stilla.tasks.text.sequences import NO_ROW
from stilla.training.drawing import drawn_from
from stilla.training.intake import LABELS, Intake, refuse_other_starts

Collator = Callable[[Sequence[Any]], Mapping[str, Any]]

_TOKENISING = (DataCollatorWithPadding, DataCollatorForSeq2Seq, DataCollatorForTokenClassification,
               DataCollatorForLanguageModeling)


@dataclass(frozen=True)
class Reading:
    """How examples become batches.

    `columns`: what is kept of an example before it is collated, as Trainer's `remove_unused_columns` has it; None: all.
    `seed`: of what a collator or a dataset draws at random, with the epoch and the examples that it draws for.
    """

    task: Task
    collator: Collator
    student: Intake
    teacher: Intake
    columns: frozenset[str] | None = None
    seed: int = 0

    @classmethod
    def of(
        cls, task: Task, student: nn.Module, teacher: object, *,
        collator: Collator | None, processor: Any, unused: bool, seed: int,
    ) -> Self:
        """`teacher`: only a model has inputs of its own. `unused`: keep the columns that no model takes."""
        ours = Intake.of(student, decodes=task.vocabulary)
        theirs = Intake.of(teacher, decodes=task.vocabulary) if isinstance(teacher, nn.Module) else ours
        taken = None if unused or ours.names is None or theirs.names is None else ours.names | theirs.names | {*LABELS}
        return cls(task, _unseeded(collator or _padding(processor)), ours, theirs, taken, seed)

    def prepared(self, dataset: Any, *, training: bool = False) -> Prepared | None:
        """A split as tasks prepare it.

        `training`: what is drawn at random is drawn anew in every epoch.

        Raises:
            CompatibilityError: columns, collator and models do not fit.
            DataError: a stream, or no examples.
        """
        if dataset is None or isinstance(dataset, Prepared):
            return dataset
        if is_stream(dataset) or not isinstance(dataset, Sized):
            raise DataError(f"got a {type(dataset).__name__}, which cannot be read in any order and more than once; "
                            f"expected a "
                            "dataset with a length. Of a stream take some: "
                            "datasets.Dataset.from_list(list(stream.take(1000)))")
        if not len(dataset):
            raise DataError("no examples: the dataset is empty")
        rows = self.rows_of(dataset)
        # shared, so that the loader's processes see it change
        epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        collate = _Collate(self, rows, epoch)
        probe = range(min(2, len(dataset)))
        packed = _examples(self.tried([rows[index] for index in probe], dataset)) != len(probe)
        return Prepared(
            examples=Positions(len(dataset)), collate=collate, keys=np.arange(len(dataset)), lengths=_lengths(dataset),
            on_epoch=collate.set_epoch if training else None, packed=packed)

    def with_unlabelled(self, prepared: Prepared, dataset: Any) -> Prepared:
        """The same, with which of its examples nobody has labelled, by its column of labels.

        Raises:
            CompatibilityError: there is no such column, or its labels are the tokens themselves.
        """
        if isinstance(dataset, Prepared):
            return dataset
        name = next((one for one in LABELS if one in _names(dataset)), None)
        if name is None or _transformed(dataset) or self.task.vocabulary:
            why = "its labels are the tokens themselves" if self.task.vocabulary else \
                "it has no column `labels` that could be looked at before"
            raise CompatibilityError("unlabelled_share: which examples of the dataset nobody has labelled is not known: "
                                     f"{why}. Leave it out, or give what a task has prepared (`Prepared.unlabelled`)")
        labels = dataset.with_format(None)[:][name]
        return dataclasses.replace(prepared, unlabelled=np.array([_is_none(one) for one in labels], np.bool_))

    def rows_of(self, dataset: Any) -> Any:
        """The dataset without the columns that no model takes, where leaving them out saves reading them."""
        names = _names(dataset)
        several = [name for name in LABELS if name in names]
        if len(several) > 1:
            raise CompatibilityError(f"the dataset has the columns {all_of([repr(name) for name in several])}: which are "
                                     f"the labels? "
                                     f"Remove all but one: dataset.remove_columns({several[1]!r})")
        if self.columns is None or not names:
            return dataset
        kept = [name for name in names if name in self.columns]
        if _transformed(dataset):
            return dataset  # made of the columns as they are read, by a function that may need any of them
        if not {*kept} - {*LABELS}:
            raise CompatibilityError(f"the dataset has the columns {all_of([repr(name) for name in names])}, and neither "
                                     f"model takes "
                                     "one of them. Tokenise it first (dataset.map), or keep all columns for the collator: "
                                     "remove_unused_columns=False")
        return dataset.select_columns(kept)

    def tried(self, rows: Sequence[Any], dataset: Any) -> Batch:
        """A first batch, of some rows of the dataset: what is wrong shows before training.

        Raises:
            CompatibilityError: the collator cannot make one of these examples.
        """
        try:
            return self.batch(rows, range(len(rows)), 0)
        except CompatibilityError:
            raise
        except Exception as error:  # whatever a collator of a person's own raises
            raise CompatibilityError(f"the collator could not make a batch of examples with "
                                     f"{_described(self._kept(rows[0]))} "
                                     f"({type(error).__name__}: {error}). {self._way_out(rows[0], dataset)}") from error

    def batch(self, rows: Sequence[Any], keys: Sequence[int], epoch: int) -> Batch:
        """The batch of some examples; `keys` are their places in the dataset."""
        with drawn_from([self.seed, epoch, *keys]):
            made = self.collator([self._kept(row) for row in rows])
        if not isinstance(made, Mapping):
            raise CompatibilityError(f"the collator gave a {type(made).__name__}; expected tensors by name")
        tensors = {name: value for name, value in made.items() if isinstance(value, Tensor)}
        self._refuse_other_kinds(made, tensors)
        given = next((tensors[name] for name in LABELS if name in tensors), None)
        tensors = {name: value for name, value in tensors.items() if name not in LABELS}
        if given is None and self.task.vocabulary:
            raise CompatibilityError(f"the dataset's batches have {sorted(tensors)} and no `labels`; name the label column "
                                     f"so")
        refuse_other_starts(self.student, self.teacher, tensors, given)
        student, teacher = self.student(tensors, given), self.teacher(tensors, given)
        if not student:
            raise CompatibilityError(f"the student takes none of what the collator makes: {sorted(tensors)}")
        if _alike(student, teacher):
            teacher = student
        batch = Batch(student=student, teacher=teacher, keys=torch.tensor([*keys]))
        if given is not None:
            batch["labels"] = labels = self.task.placed(given)
            if labels is not given:
                batch["given"] = given
        return batch

    def _kept(self, row: Any) -> Any:
        if self.columns is None or not isinstance(row, Mapping):
            return row
        return {name: value for name, value in row.items() if name in self.columns}

    def _refuse_other_kinds(self, made: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        wanted = {*LABELS, *(self.student.names or ()), *(self.teacher.names or ())}
        wrong = {name: type(value).__name__ for name, value in made.items()
                 if name in wanted and name not in tensors and isinstance(value, list | tuple | np.ndarray)}
        if wrong:
            name, kind = next(iter(wrong.items()))
            raise CompatibilityError(f"the collator's `{name}` is a {kind}; expected a tensor, of all examples of a batch "
                                     f"in one "
                                     "size (`padding=True`, `return_tensors=\"pt\"`)")

    def _way_out(self, row: Any, dataset: Any) -> str:
        there = {*_names(dataset), *(row if isinstance(row, Mapping) else ())}
        left_out = [] if self.columns is None else sorted(there - self.columns)
        texts = [name for name, value in row.items() if isinstance(value, str)] if isinstance(row, Mapping) else []
        if texts and self.columns is None:
            return f"It may be the text: dataset.remove_columns({texts}), or remove_unused_columns=True."
        if self.collator is default_data_collator:
            return ("No collator was given, so that nothing is padded; give `processing_class` a tokenizer, or a "
                    "`data_collator`.")
        if left_out:
            return (f"Neither model takes {all_of([repr(name) for name in left_out])}, left out as Trainer does: where the "
                    "collator needs them, set remove_unused_columns=False.")
        return "Try it on some examples: data_collator([dataset[0], dataset[1]])."


def tokenizer_of(collator: Collator | None) -> Any:
    """The tokenizer that one of transformers' collators holds, or None."""
    return collator.tokenizer if isinstance(collator, _TOKENISING) else None


def collator_problems(collator: Collator | None) -> list[str]:
    """Why what a collator makes would be learnt wrongly; empty if it would not."""
    if not isinstance(collator, DataCollatorForSeq2Seq | DataCollatorForTokenClassification):
        return []
    if collator.label_pad_token_id == NO_ROW:
        return []
    return [f"data_collator: label_pad_token_id is {collator.label_pad_token_id}, so that padding would be learnt as if it "
            f"were text, the more the shorter an example is beside others; set it to {NO_ROW}"]


@dataclass(frozen=True, eq=False)
class _Collate:
    """Reads examples and collates them, both where chance depends on nothing but seed, epoch and examples."""

    reading: Reading
    rows: Any
    epoch: Tensor

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __call__(self, places: Sequence[int]) -> Batch:
        epoch = int(self.epoch)
        if isinstance(self.rows, datasets.Dataset) and not _transformed(self.rows):
            rows: Sequence[Any] = self.rows.__getitems__([*places])  # one look into the table for all
        else:
            rows = [self._row(place, epoch) for place in places]
        return self.reading.batch(rows, places, epoch)

    def _row(self, place: int, epoch: int) -> Any:
        with drawn_from([self.reading.seed, epoch, place]):
            return self.rows[place]


def _padding(processor: Any) -> Collator:
    """What Trainer takes where no collator is given."""
    pads = isinstance(processor, PreTrainedTokenizerBase | SequenceFeatureExtractor)
    collator: Collator = DataCollatorWithPadding(processor) if pads else default_data_collator
    return collator


def _unseeded(collator: Collator) -> Collator:
    """Without a generator of its own, which no checkpoint holds: it draws as others do, from seed, epoch and examples."""
    if not isinstance(collator, DataCollatorForLanguageModeling) or collator.seed is None:
        return collator
    unseeded: Collator = dataclasses.replace(collator, seed=None)
    return unseeded


def is_stream(dataset: Any) -> bool:
    """Whether it can only be read from its beginning."""
    return isinstance(dataset, datasets.IterableDataset | torch.utils.data.IterableDataset)


def _names(dataset: Any) -> list[str]:
    """Its columns; empty where it does not say them."""
    if isinstance(dataset, datasets.Dataset):
        columns = dataset.format["columns"]
        return list(dataset.column_names if columns is None else columns)
    if isinstance(dataset, datasets.IterableDataset):
        return list(dataset.column_names or ())
    return []


def _transformed(dataset: Any) -> bool:
    """Whether its examples are made by a function while they are read (`with_transform`)."""
    return isinstance(dataset, datasets.Dataset) and dataset.format["type"] == "custom"


def _is_none(label: Any) -> bool:
    """Whether it is the label of an example that has none: -100, for each of several, or no number."""
    if isinstance(label, list):
        return all(_is_none(one) for one in label)
    return bool(label == NO_ROW or label != label)


def _lengths(dataset: Any) -> list[int] | None:
    if not isinstance(dataset, datasets.Dataset) or "input_ids" not in dataset.column_names:
        return None
    return [len(ids) for ids in dataset.with_format(None)["input_ids"]]


def _alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(value is other[name] or torch.equal(value, other[name])
                                              for name, value in one.items())


def _examples(batch: Batch) -> int:
    return len(next(iter(batch.student.values())))


def _described(row: Any) -> str:
    if not isinstance(row, Mapping):
        return f"no names (each is a {type(row).__name__})"
    return "the columns " + all_of([repr(name) for name in row])
