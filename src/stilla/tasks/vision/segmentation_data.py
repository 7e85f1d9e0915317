"""Which columns are pictures and masks, and what the masks' ids are called."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from stilla.errors import DataError, all_at_once, all_of, one_of
from stilla.recipe import Data
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.classification import attempt
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.vision.masks import Ids, Looked, look
from stilla.tasks.vision.pictures import Pictures, holds_pictures
from stilla.tasks.vision.segmentation_section import SemanticSegmentationData

logger = logging.getLogger(__name__)

MASKS = ("mask", "annotation", "label", "labels", "annotations", "masks", "segmentation", "segmentation_mask",
         "semantic_mask", "segmentation_map", "target", "gt")
"""What people call the column of masks."""


@dataclass(frozen=True)
class Found:
    """`ids`: that stand for classes, after reduction, in the order of `names`. `named`: False where names are the ids."""

    image: str
    mask: str
    ids: tuple[int, ...]
    names: tuple[str, ...]
    named: bool
    reduced: bool

    def meaning(self, order: Sequence[str], raw: Sequence[str], ignored: Sequence[int]) -> Ids:
        """What the numbers of masks mean. order: the models' names of classes. raw: how the data spell each: its id."""
        spelled = {str(one): one for one in self.ids}
        # a teacher's further class may be called by a number, which is no id
        places = {spelled[said]: place for place, (name, said) in enumerate(zip(order, raw, strict=True))
                  if said in spelled and (not self.named or name in self.names)}
        return Ids(places, frozenset(ignored), self.reduced)


def understand(section: SemanticSegmentationData, splits: Mapping[str, Dataset]) -> Found:
    """Raises:
        DataError: everything that is wrong with columns, masks and ids, all at once.
    """
    where = "train" if "train" in splits else next(iter(splits))
    problems: list[str] = []
    mask = attempt(problems, mask_column, section, splits[where])
    image = attempt(problems, _columns.image, section, splits[where], [mask] if mask else [], holds_pictures)
    if mask is None or image is None:
        raise all_at_once(problems, DataError)
    if absent := _columns.missing([image, mask], splits):
        raise all_at_once(absent, DataError)
    seen = {name: look(split, image, mask) for name, split in splits.items()}
    for name, split in splits.items():
        attempt(problems, refuse_broken, section, name, split, image, seen[name].broken)
    given = attempt(problems, named_ids, section)
    if problems:
        raise all_at_once(problems, DataError)
    return _ids(section, image, mask, splits, seen, where, given)


def mask_column(section: SemanticSegmentationData, train: Dataset) -> str:
    """The recipe's, a usual name, or the only one beside a picture of a usual name.

    Raises:
        DataError: no such column, or the names leave it open.
    """
    if section.mask is not None:
        return _columns.existing("mask", (section.mask,), train, holds_pictures, "masks")[0]
    fitting = [name for name in train.column_names if holds_pictures(train.features[name]) and name != section.image]
    usual = [name for name in fitting if name.lower() in MASKS]
    others = [name for name in fitting if name.lower() not in _columns.IMAGES]
    for unambiguous in (usual, others if len(others) < len(fitting) or section.image else []):
        if len(unambiguous) == 1:
            return str(unambiguous[0])
    why = f"{one_of(usual or fitting)} could be it" if fitting else "no column holds pictures"
    raise DataError(f"data.mask: which column is the mask? {why}. {_columns.columns_of(train)} Set data.mask.")


def refuse_broken(section: Data, name: str, split: Dataset, image: str, masks: Mapping[int, str]) -> list[int]:
    """The rows that cannot be used, of a picture or its mask. masks: those whose mask cannot, and why.

    Raises:
        DataError: there are some, and the recipe does not leave them out.
    """
    pictures = Pictures.of(split, image)
    broken = {**masks, **pictures.broken()}
    if broken:
        listed = "; ".join(f"{pictures.name(row)}: {why}" for row, why in sorted(broken.items())[:5])
        refuse_or_leave_out(section, f"data.{name}: {len(broken)} of {len(split)} pictures or masks cannot be used",
                            listed + (" ..." if len(broken) > 5 else ""))
    if len(broken) == len(split):
        raise DataError(f"data.{name}: there is no picture with a mask left: all {len(split)} are broken.")
    return sorted(broken)


def named_ids(section: SemanticSegmentationData) -> dict[int, str] | None:
    """The classes' names by id, as the recipe or a file says them; None where nobody does.

    Raises:
        DataError: both say it, the file says something else, or two ids have one name.
    """
    if section.labels is not None and section.id2label is not None:
        raise DataError("data.labels: data.id2label says the names too; keep one of them")
    if isinstance(section.labels, Mapping):
        found = {int(one): name for one, name in section.labels.items()}
    elif section.labels is not None:
        found = dict(enumerate(section.labels))
    else:
        beside = None if section.train is None else Path(section.train) / "id2label.json"
        path = Path(section.id2label) if section.id2label is not None else beside
        if path is None or (section.id2label is None and not path.is_file()):
            return None
        found = _of_file(path)
    if len(set(found.values())) < len(found):
        twice = sorted({name for name in found.values() if list(found.values()).count(name) > 1})
        raise DataError(f"data.labels: two ids are called {all_of([repr(one) for one in twice[:5]])}; expected a name for "
                        "each")
    return dict(sorted(found.items())) if section.labels is None or isinstance(section.labels, tuple) else found


def _of_file(path: Path) -> dict[int, str]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"data.id2label: {str(path)!r}: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"data.id2label: {str(path)!r}: no JSON: {error}") from error
    inner = stored.get("id2label", stored) if isinstance(stored, dict) else stored
    pairs = list(enumerate(inner)) if isinstance(inner, list) else list(inner.items()) if isinstance(inner, dict) else []
    whole = all(str(one).isdecimal() and isinstance(name, str) for one, name in pairs)
    if not pairs or not whole:
        raise DataError(f"data.id2label: {str(path)!r}: expected names by id, {{\"0\": \"wall\", ...}}")
    return {int(one): str(name) for one, name in pairs}


def _ids(section: SemanticSegmentationData, image: str, mask: str, splits: Mapping[str, Dataset], seen: Mapping[str, Looked],
         where: str, given: dict[int, str] | None) -> Found:
    reduced, ignored = bool(section.reduce_labels), set(section.ignore)
    there = {name: _meant(looked.all(), ignored, reduced) for name, looked in seen.items()}
    names = given if given is not None else {one: str(one) for one in sorted(there[where])}
    both = sorted(one + reduced for one in names if one + reduced in ignored)
    problems = [f"data.labels: {all_of(list(map(str, both[:5])))} {'has a name' if len(both) == 1 else 'have names'}, and "
                "data.ignore says that it is no class; keep one of them (data.ignore: [] ignores nothing)"] if both else []
    for name, ids in there.items():
        if unknown := sorted(ids - names.keys()):
            rows = sorted({row for one in unknown for row in seen[name].with_id(one + reduced)})
            known = "what is named" if given is not None else "what the training masks hold"
            problems.append(
                f"data.{name}: ids that no class has: {all_of([str(one + reduced) for one in unknown[:8]])}"
                f"{' ...' * (len(unknown) > 8)}, in {len(rows)} of {len(splits[name])} masks "
                f"({rows_in_words(splits[name], rows)}); {known} is "
                f"{all_of([str(one + reduced) for one in names][:12])}{' ...' * (len(names) > 12)}. Name them in "
                "data.labels, or say in data.ignore that they are none")
        elif not ids:
            problems.append(f"data.{name}: no pixel of any mask is of a class{_all_ignored(seen[name], ignored, reduced)}")
    held = there[where] if where == "train" else names.keys()  # of pictures to be asked about, one may be all there is
    if not problems and len(held) < 2:
        problems.append(f"data.mask: {mask!r} holds one class only, {all_of([names[one] for one in held])}: there is nothing "
                        f"to tell apart{_all_ignored(seen[where], ignored, reduced)}")
    if problems:
        raise all_at_once(problems, DataError)
    absent = [name for one, name in names.items() if one not in there[where]]
    if absent:
        logger.warning("data.labels: no pixel of %s in %s", all_of(absent[:8]) + " ..." * (len(absent) > 8), where)
    return Found(image, mask, tuple(names), tuple(names.values()), given is not None, reduced)


def _meant(stored: set[int], ignored: set[int], reduced: bool) -> set[int]:
    return {one - reduced for one in stored if one not in ignored and not (reduced and one == 0)}


def _all_ignored(looked: Looked, ignored: set[int], reduced: bool) -> str:
    """Of masks of 0 and 255, as programs for drawing write them, 255 is no border; of 0 and 1, 0 is a class."""
    beside = sorted(looked.all() & ignored)
    if reduced and 0 in looked.all() - ignored:
        return ". They also hold 0, which data.reduce_labels takes for no class: if it is one, set data.reduce_labels: false"
    if not beside:
        return ""
    listed = all_of(list(map(str, beside[:5])))
    return (f". They also hold {listed}, which data.ignore takes for no class: if it is one, set data.ignore: [] (and name "
            f"the classes: data.labels: {{0: background, {beside[-1]}: object}})")
