"""What a language model is shown so that it writes a further text like those of the data: some of them, never a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stilla.errors import CompatibilityError
from stilla.recipe import Generate

MARK = "Text:"
"""Before every text that is shown, and before the one to be written."""
UNTOLD = "Here are texts of one kind."
ONE_MORE = "Write one more text of this kind. Answer with that text alone, on one line."
_SALT = 5  # of the draws; the data's are 1 to 4


@dataclass(frozen=True)
class Prompts:
    """What the model goes on from. `shown`: the texts that may be shown. `room`: positions that it has."""

    section: Generate
    tokenizer: Any
    shown: Sequence[str]
    room: int
    seed: int

    def drawn(self, number: int) -> tuple[list[str], NDArray[np.float64]]:
        """The texts that are shown for the one of this number, and the chance of its tokens; of the seed and it alone."""
        draw = np.random.default_rng((self.seed, _SALT, number))
        count = min(self.section.shown, len(self.shown))
        rows: list[int] = draw.choice(len(self.shown), count, replace=False).tolist() if count else []
        return [self.shown[row] for row in rows], draw.random(self.section.max_new_tokens)

    def tokens(self, shots: Sequence[str]) -> list[int]:
        """The prompt that shows these; of long ones, where all do not fit, their beginning.

        Raises:
            CompatibilityError: there is no room for it and a new text.
        """
        left = self.room - self.section.max_new_tokens
        whole = self._ids(shots) if self.section.shown else [self._beginning()]
        if len(whole) > left and shots:  # 8: what two pieces may have more apart than in one
            each = (left - len(self._ids([""] * len(shots))) - 8) // max(1, len(shots))
            whole = self._ids([self._cut(text, each) for text in shots]) if each > 0 else whole
        if len(whole) > left:
            raise CompatibilityError(f"data.unlabelled.generate: a prompt of {len(shots)} texts has {len(whole)} tokens, and "
                                     f"{self.section.model} has {self.room} positions, of which max_new_tokens takes "
                                     f"{self.section.max_new_tokens}. Show fewer (shots), or write shorter ones.")
        return whole

    def is_whole(self, text: str) -> bool:
        """Whether what was written so far has the end of its line."""
        return "\n" in (text.lstrip() if self.section.chat else text)

    def text_of(self, written: str) -> str:
        """The text in what was written: of a prompt that shows lines the first one. What a cut left of a character goes."""
        if self.section.prompt == "data":
            written = (written.lstrip() if self.section.chat else written).partition("\n")[0]
        return written.strip().rstrip("\ufffd").rstrip()

    def _ids(self, shots: Sequence[str]) -> list[int]:
        lines = [" ".join(text.split()) for text in shots]
        if self.section.chat:
            asked = "\n".join([self.section.instruction or UNTOLD, "", *lines, "", ONE_MORE])
            said = self.tokenizer.apply_chat_template([{"role": "user", "content": asked}], tokenize=False,
                                                      add_generation_prompt=True)
            return self._plain(said, add_special_tokens=False)
        head = [self.section.instruction, ""] if self.section.instruction else []
        ids = self._plain("\n".join([*head, *(f"{MARK} {line}" for line in lines), MARK]), add_special_tokens=True)
        while ids and ids[-1] == self.tokenizer.eos_token_id:  # some tokenizers end every text
            ids.pop()
        return ids

    def _cut(self, text: str, tokens: int) -> str:
        ids = self._plain(" ".join(text.split()), add_special_tokens=False)
        return text if len(ids) <= tokens else str(self.tokenizer.decode(ids[:tokens])).rstrip("\ufffd")

    def _plain(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Its tokens, whatever their number: it is looked at here."""
        return list(self.tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])

    def _beginning(self) -> int:
        for one in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):  # of GPT-2 both are one
            if one is not None:
                return int(one)
        raise CompatibilityError(f"data.unlabelled.generate: {self.section.model} has no token that a text begins with (bos "
                                 "or eos). Use prompt: data.")
