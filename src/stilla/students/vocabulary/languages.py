"""Which tokens the words of a language use, by how frequent they are: for students of texts that the data do not show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from stilla.errors import CompatibilityError, did_you_mean, one_of

LIST = "small"
"""Of wordfreq: words that stand at least once in a million (Speer 2022, github.com/rspeer/wordfreq)."""
_AT_ONCE = 1000


def of_language(tokenizer: PreTrainedTokenizerBase, language: str) -> NDArray[np.float64]:
    """(tokens,) how often each token stands in the frequent words of a language, small and with a capital; 1 in all.

    Raises:
        CompatibilityError: wordfreq is missing, or does not know the language.
    """
    words = list(_frequencies(language).items())
    found = np.zeros(1 + max(tokenizer.get_vocab().values()))
    for start in range(0, len(words), _AT_ONCE):
        part = words[start : start + _AT_ONCE]
        # at the beginning of a text as well as after a space
        texts = [f"{word.capitalize()} {word} {word.capitalize()}" for word, _ in part]
        encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False,
                            verbose=False)["input_ids"]
        for ids, (_, frequency) in zip(encoded, part, strict=True):
            np.add.at(found, ids, frequency)
    shares: NDArray[np.float64] = found / found.sum()
    return shares


def _frequencies(language: str) -> dict[str, float]:
    try:
        import wordfreq
    except ImportError as error:
        raise CompatibilityError('student.vocabulary.languages needs wordfreq, which is not installed: pip install '
                                 '"stilla[languages]"') from error
    known = sorted(wordfreq.available_languages(LIST))
    if language not in known:
        raise CompatibilityError(f"student.vocabulary.languages: got {language!r}; expected {one_of(known)}."
                                 f"{did_you_mean(language, known)}")
    frequencies: dict[str, float] = wordfreq.get_frequency_dict(language, LIST)
    return frequencies
