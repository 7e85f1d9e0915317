"""Image-text-to-text: captions of pictures, answers to questions about them, conversations with pictures in them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, PreTrainedModel, PreTrainedTokenizerBase

from stilla.data import are_unlabelled
from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.recipe import Evaluate, Generation, ModelSource, StudentSpec
from stilla.signals import Batch, Dense, Headed, Side, Signals
from stilla.students.vocabulary.refusal import refusal
from stilla.tasks.base import Loaded, Prepared, Segment, Texts
from stilla.tasks.exam import Exam
from stilla.tasks.language.ends import Ends
from stilla.tasks.language.models import language_model
from stilla.tasks.language.sections import WritingEvaluate
from stilla.tasks.language.talks import OPEN, Talk, UnreadableError
from stilla.tasks.language.translations import CUT
from stilla.tasks.language.vocabulary import Vocabulary, in_use, outputs_of, refuse_other_tokens
from stilla.tasks.language.writing import Asked, Writes, exams_of
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.classification import Positions, attempt
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.text import tokens
from stilla.tasks.text.sequences import NO_ROW
from stilla.tasks.vision_text import files, questions, scripts, shown, teachers
from stilla.tasks.vision_text.album import NONE, Album
from stilla.tasks.vision_text.caption_exam import CaptionExam
from stilla.tasks.vision_text.looker import Looker, look, looker_for
from stilla.tasks.vision_text.questions import Layout
from stilla.tasks.vision_text.scripts import Script
from stilla.tasks.vision_text.sections import ImageTextToTextData
from stilla.tasks.vision_text.usage import DESCRIBING

logger = logging.getLogger(__name__)

_LONGEST = 4096  # tokens, where neither recipe nor model says how much is read


@dataclass(frozen=True)
class ImageTextToText(Vocabulary[ImageTextToTextData], Writes):
    """What is said of pictures, token by token: by LLaVA, Qwen-VL, SmolVLM and others that read pictures at tokens of a text.

    Rows are the tokens that are learnt, of captions, answers or an assistant's turns, and nothing else: the two models may
    see a picture in more tokens or fewer, and write other things around it. Each side knows where it predicts them
    (`words` of a batch).
    """

    layout: Layout | None = None
    answers: Any = None
    """Of what type the column of answers is."""
    teachers: Layout | None = None
    """Where it stands what teachers see and are asked instead; None: the same. The answers are the same."""
    as_teacher: bool = False
    """Whether a teacher is asked by itself, and sees that."""

    kind: ClassVar[str] = "image-text-to-text"
    usage = DESCRIBING
    data_section = ImageTextToTextData
    evaluate_section = WritingEvaluate
    auto: ClassVar[Any] = AutoModelForImageTextToText
    shown: ClassVar[bool] = False

    # --- data ---

    @classmethod
    def understand(cls, section: ImageTextToTextData, splits: Mapping[str, Dataset]) -> Self:
        train = splits.get("train", next(iter(splits.values())))
        problems: list[str] = []
        found = attempt(problems, questions.layout, section, train)
        if found is not None:
            absent = _columns.missing(found.all, splits)
            for name, split in splits.items() if not absent else ():
                attempt(problems, _refuse_broken, section, name, split, found)
            problems += absent
        if problems or found is None:
            raise all_at_once(problems, DataError)
        return cls(section=section, layout=found, answers=questions.answers_feature(train, found))

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        own = self._layout
        other = teachers.layout(own, columns, splits)
        problems: list[str] = []
        for name, split in splits.items() if other != own else ():
            attempt(problems, _refuse_broken, self.section, name, split, other)
        if problems:
            raise all_at_once(problems, DataError)
        return replace(self, teachers=None if other == own else other)

    def of_teacher(self) -> Self:
        return self if self.teachers is None else replace(self, as_teacher=True)

    def teaching(self) -> Self:
        return self.of_teacher()

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        raise CompatibilityError("image-text-to-text: where the same tokens stand for both models is known only of data that "
                                 "Stilla reads itself. Use a recipe (`stilla.distill`).")

    def resolved(self, section: ImageTextToTextData) -> ImageTextToTextData:
        return section.model_copy(update=self._layout.resolved())

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        """Pictures (with questions or conversations, where the data have such), about which the teacher writes."""
        return self._layout.unlabelled(pool, called, self.answers, self.teachers)

    def usable(self, pool: Dataset) -> Dataset:
        broken = {row for one in self._layouts for row in _refuse_broken(self.section, "unlabelled", pool, one, free=True)}
        return pool.select(np.setdiff1d(np.arange(len(pool)), sorted(broken))) if broken else pool

    def beside(self, split: Dataset) -> Dataset:
        return self._layout.beside(split, self.teachers)

    def beside_answers(self, split: Dataset) -> Dataset:
        return self.beside(split)

    def traces(self, split: Dataset) -> Iterable[tuple[bytes]]:
        return ((digest,) for digest in Album.of(split, self._layout.image).digests())

    def texts(self, split: Dataset, processor: Any) -> Texts:
        raise refusal(f"models of `{self.kind}` and their processors are told by number which tokens stand for pictures, and "
                      "these numbers are not moved yet")

    # --- models ---

    def tokenizer_of(self, processor: Any) -> PreTrainedTokenizerBase:
        return _looker(processor).tokenizer

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        model = language_model(source, self.auto, labelled=labelled)
        looker = looker_for(source, model)
        outputs, used = outputs_of(model), in_use(looker.tokenizer)
        if outputs < used:
            raise CompatibilityError(f"{source.model!r} has {outputs} outputs, and its tokenizer's tokens go up to "
                                     f"{used - 1}: they do not belong together.")
        look(model, looker, source.model)
        return Loaded(model, looker, source.model)

    def seeing(self, student: Loaded, spec: StudentSpec) -> Loaded:
        """A student that is made, of its teacher or a config, sees what the processor makes."""
        assert isinstance(student.model, PreTrainedModel)  # `load` gives no other
        look(student.model, _looker(student.processor), "the student")
        return student

    def unwritten(self, model: nn.Module, formats: Sequence[str]) -> list[str]:
        return files.unwritten(model, formats)

    def axes_of(self, inputs: Mapping[str, Tensor]) -> Mapping[str, tuple[str, ...]]:
        return files.axes_of(inputs)

    def asking(self, processor: Any) -> str:
        return files.asking(_looker(processor), self._layout)

    def between(self, student: Loaded, teacher: Loaded) -> Self:
        return self.adapted_to(student)

    def comparable(self, student: Any, teacher: Any) -> bool:
        return self.alike(student, teacher)

    # --- examples ---

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        ours = _looker(student)
        theirs = ours if teacher is None or ours.reads_alike(_looker(teacher)) else _looker(teacher)
        if ours.tokenizer.get_vocab() != theirs.tokenizer.get_vocab():
            refuse_other_tokens(ours.tokenizer, theirs.tokenizer)
        album, asked = self._asked(split)
        others = self if self.teachers is None or teacher is None else self.of_teacher()
        albums, told = (album, asked) if others is self else others._asked(split)
        shared = theirs is ours and others is self
        one = dict(Script(ours).learnt(asked, skip=self._skips))
        other = one if shared else dict(Script(theirs).learnt(told, skip=self._skips))
        length = self._length(ours, theirs)
        kept, sequences, answered = shown.fitting(one, other, (ours, theirs), length, lambda number: asked[number].row)
        if not kept:
            raise DataError(f"nothing can be learnt of any of the {len(split)} examples: within {length} tokens there is not "
                            "all of their pictures with something to learn after them; "
                            f"{shown.more_room(length, (ours, theirs))}.")
        rows = np.array([asked[number].row for number in kept], np.int64)
        mine = shown.read(ours, sequences)
        same = shared or (others is self and all(
            np.array_equal(a, b) for (a, _), (b, _) in zip(sequences, answered, strict=True)))
        collate = shown.Collate((album, albums), rows, mine, mine if shared else shown.read(theirs, answered),
                                shown.learnt_tokens(sequences))
        return Prepared(Positions(len(rows)), collate, rows, mine.tokens.lengths.tolist(), aligned=same)

    def _asked(self, split: Dataset, *, pool: bool = False) -> tuple[Album, list[scripts.Asked]]:
        """All conversations of a split, in its order, of rows that all models can read. `pool`: where an answer is only asked
        for, too."""
        free = are_unlabelled(split) if pool else np.zeros(len(split), np.bool_)
        read = self._layout if self.teachers is None or not self.as_teacher else self.teachers
        rows, album = read.read(split, free), Album.of(split, read.image)
        broken = {row for one in {each.image for each in self._layouts} for row in Album.of(split, one).broken()} \
            if self._skips else set()
        broken |= {row for one in self._layouts if one is not read for row, talks in enumerate(one.read(split, free))
                   if isinstance(talks, UnreadableError)}
        cut = _columns.values(split, CUT) if CUT in split.column_names else [False] * len(split)
        found = list[scripts.Asked]()
        for row, talks in enumerate(rows):
            if not isinstance(talks, UnreadableError) and row not in broken:
                sizes = album.sizes(row)
                found += [scripts.Asked(talk, row, sizes, bool(cut[row])) for talk in talks]
        return album, found

    def _length(self, *lookers: Looker) -> int:
        wanted, tokenizers = self._section().max_length, [one.tokenizer for one in lookers]
        readable = min(int(one.model_max_length) for one in tokenizers)
        return min(readable, _LONGEST) if wanted is None else tokens.longest(tokenizers, wanted)

    # --- rows ---

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        """The rows where this side predicts what is learnt, in the order of the batch."""
        labels, places = batch.labels, batch["words"][side.value]
        assert labels is not None  # `prepare` makes no batch without
        hidden = outputs.hidden if isinstance(outputs, Headed) else self.outputs(outputs)
        starts = hidden.shape[1] * np.arange(len(labels))
        there = labels != NO_ROW
        rows = (places + places.new_tensor(starts)[:, None])[there]
        flat = hidden.flatten(0, -2)[rows]
        said = Headed(flat, outputs.head) if isinstance(outputs, Headed) else Dense(flat)
        return Signals(logits=said, labels=labels[there])

    def stack_mask(self, batch: Batch, side: Side, stack: str) -> Tensor | None:
        """Of texts; all that is seen of a picture is valid."""
        return None if stack.startswith("vision") else self.mask(batch, side)

    def segments(self, batch: Batch) -> list[Segment]:
        """Every example: its tokens, where in them its rows are, and its pictures as they are stored."""
        segments, first = [], 0
        assert batch.labels is not None
        counts = (batch.labels != NO_ROW).sum(1).tolist()
        inputs, there = batch.teacher["input_ids"].cpu(), self.mask(batch, Side.TEACHER).cpu()
        places, looks = batch["words"][Side.TEACHER.value].cpu(), batch["looks"].cpu()
        for example, rows in enumerate(counts):
            ids = inputs[example][there[example]].numpy().astype(np.int32)
            parts = (ids, places[example, :rows].numpy().astype(np.int32), looks[example].numpy())
            segments.append(Segment(b"".join(part.tobytes() for part in parts), slice(first, first + rows), example))
            first += rows
        return segments

    # --- writing ---

    def exams(self, section: Evaluate) -> tuple[Exam, ...]:
        return exams_of(self, self.exam(), section)

    def written_exam(self, section: Generation) -> CaptionExam:
        return CaptionExam(self, section, self._layout.image)

    def text_metrics(self) -> tuple[str, ...]:
        return ("rougeL", "rouge1", "rouge2")

    def unasked(self) -> str | None:
        return None

    def asked(self, split: Dataset, processor: Any) -> Asked:
        """One question per row; of several captions the first is what texts are compared with."""
        looker = _looker(processor)
        album, every = self._asked(split, pool=True)
        firsts = {one.row: one for one in reversed(every)}
        asked = [firsts[row] for row in sorted(firsts)]
        length = self._length(looker)
        fits = [(asked[number], made) for number, made in Script(looker).asked(asked, skip=self._skips)
                if len(made[0]) < length]
        if not fits:
            raise DataError(f"no picture with what is asked about it leaves room for an answer within {length} tokens; "
                            f"{shown.more_room(length, (looker,))}.")
        ends = Ends.of(looker.tokenizer)
        rows = np.array([one.row for one, _ in fits], np.int64)
        said = [ends.unended(_answer(one.talk)) for one, _ in fits]
        read = shown.read(looker, [made for _, made in fits], left=True)
        return Asked(shown.Posed(album, rows, read), rows, said)

    def source_of(self, split: Dataset, key: int) -> str:
        (row,) = self._layout.read(split.select([int(key)]), [True])
        return "" if isinstance(row, UnreadableError) else row[0].lines(row[0].asked)

    def askable(self, split: Dataset) -> NDArray[np.int64]:
        return np.zeros(0, np.int64)

    def answered(self, split: Dataset, texts: Sequence[str], cut: Sequence[bool]) -> Dataset:
        return self._layout.answered(split, texts, cut)

    def continued(self, processor: Any, inputs: Mapping[str, Tensor], written: Sequence[Sequence[int]]) -> Batch:
        return shown.continued(_looker(processor), inputs, written)

    def text_of(self, processor: Any, ids: Sequence[int]) -> str:
        return str(_looker(processor).tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def identity(self, processor: Any) -> str:
        read = () if self.teachers is None or not self.as_teacher else self.teachers.all
        return tokens.fingerprint(self.tokenizer_of(processor), str(_looker(processor).to_dict()), self._layout.instruction,
                                  *read)

    # --- what a recipe gives ---

    @property
    def _layout(self) -> Layout:
        if self.layout is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        return self.layout

    @property
    def _layouts(self) -> tuple[Layout, ...]:
        """The student's, and its teachers' where that is another."""
        return (self._layout,) if self.teachers is None else (self._layout, self.teachers)

    def _section(self) -> ImageTextToTextData:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        return self.section

    @property
    def _skips(self) -> bool:
        return self._section().broken == "skip"


def _answer(talk: Talk) -> str:
    said = str(talk.messages[talk.asked].get("content", ""))
    return "" if said == OPEN else said


def _looker(processor: Any) -> Looker:
    if not isinstance(processor, Looker):
        raise CompatibilityError(f"got a {type(processor).__name__}; expected what `ImageTextToText.load` gives: a processor "
                                 "of pictures and texts that knows which tokens stand for a picture")
    return processor


def _refuse_broken(
    section: ImageTextToTextData | None, name: str, split: Dataset, layout: Layout, *, free: bool = False
) -> list[int]:
    """Rows that cannot be learnt (`free`: be asked about), where the recipe leaves them out.

    Raises:
        DataError: there are some, and it does not.
    """
    assert section is not None  # of a recipe
    problems: list[str] = []
    album = Album.of(split, layout.image)
    unseen = album.broken()
    if unseen:
        found = f"data.{name}: {len(unseen)} of {len(split)} examples have pictures that cannot be read"
        listed = "; ".join(f"{album.name(row)}: {why}" for row, why in list(unseen.items())[:5])
        attempt(problems, refuse_or_leave_out, section, found, listed + (" ..." if len(unseen) > 5 else ""))
    unread: dict[str, list[int]] = {}
    for row, talks in enumerate(layout.read(split, [free] * len(split))):
        if isinstance(talks, UnreadableError) and unseen.get(row) != NONE:
            unread.setdefault(str(talks), []).append(row)
    named = _columns.named(layout.columns)
    for why, rows in unread.items():
        attempt(problems, refuse_or_leave_out, section,
                f"data.{name}: {named} {why} in {len(rows)} of {len(split)} examples", rows_in_words(split, rows))
    if problems:
        raise all_at_once(problems, DataError)
    return sorted({*unseen, *(row for rows in unread.values() for row in rows)})
