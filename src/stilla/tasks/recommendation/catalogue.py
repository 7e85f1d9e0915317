"""The items of a model: its vocabulary, what they are called, and the file that is saved with the model.

Items have the numbers 0, 1, ...; behind them stand the padding and, where items are hidden, the mask. So a model's first
`len(items)` outputs are the items, and nothing else can be recommended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stilla.errors import CompatibilityError
from stilla.runtime.files import write_whole

FILE = "items.json"
_FIELDS = ("items", "titles", "masked", "max_length", "seen")


@dataclass(frozen=True)
class Catalogue:
    """What models of this task have in the place of a tokenizer.

    items: their ids, by number. titles: what they are called, where somebody said it, by number. masked: whether a model
    reads a mask where it has to foretell. max_length: positions that a model has. seen: whether what was taken before may be
    recommended.
    """

    items: tuple[str, ...]
    titles: Mapping[int, str] = field(default_factory=dict, compare=False)
    masked: bool = False
    max_length: int = 50
    seen: bool = True

    def __len__(self) -> int:
        return len(self.items)

    @property
    def pad_token_id(self) -> int:
        return len(self.items)

    @property
    def mask_token_id(self) -> int | None:
        return len(self.items) + 1 if self.masked else None

    @property
    def outputs(self) -> int:
        """Numbers that a model needs an embedding for."""
        return len(self.items) + 1 + self.masked

    @cached_property
    def numbers(self) -> dict[str, int]:
        return {item: number for number, item in enumerate(self.items)}

    def get_vocab(self) -> dict[str, int]:
        return self.numbers

    def read(self, items: Iterable[str]) -> NDArray[np.int32]:
        """The numbers of items; -1 of those that it does not know."""
        return np.array([self.numbers.get(item, -1) for item in items], np.int32)

    def called(self, number: int) -> str:
        """What an item is called."""
        return self.titles.get(number, self.items[number]) if 0 <= number < len(self) else "(unknown)"

    def to_dict(self) -> dict[str, Any]:
        """What decides about a model's inputs."""
        return {"items": list(self.items), "masked": self.masked, "max_length": self.max_length}

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `items.json`: `items` and `titles` by number; `pad` and `mask`, the numbers that are no items."""
        titles = [self.titles.get(number) for number in range(len(self))] if self.titles else None
        plain = {"items": list(self.items), "titles": titles, "pad": self.pad_token_id, "mask": self.mask_token_id,
                 "max_length": self.max_length, "seen": "keep" if self.seen else "leave_out",
                 "model": "AutoModelForMaskedLM" if self.masked else "AutoModelForCausalLM"}
        write_whole(Path(folder) / FILE, json.dumps(plain, ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def of_folder(cls, place: str) -> Catalogue:
        """Raises:
            CompatibilityError: there is none, or it is none.
        """
        path = Path(place).expanduser() / FILE
        if not path.is_file():
            raise CompatibilityError(f"{place!r} holds no {FILE}, which says what its items are; expected a folder that a "
                                     "run wrote, or a model of a config: {model: llama, config: {...}, train: {}}")
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            items, titles = plain["items"], plain["titles"] or []
            if not items or not all(isinstance(one, str) for one in items) or len(set(items)) != len(items):
                raise ValueError("`items` is no list of different texts")
            if plain["pad"] != len(items) or plain["mask"] not in (None, len(items) + 1):
                raise ValueError("`pad` and `mask` do not stand behind the items")
            found = cls(tuple(items), {number: str(one) for number, one in enumerate(titles) if one is not None},
                        plain["mask"] is not None, int(plain["max_length"]), plain["seen"] == "keep")
        except (ValueError, KeyError, TypeError) as error:
            raise CompatibilityError(f"{str(path)!r} cannot be read: {error!r}") from error
        return found
