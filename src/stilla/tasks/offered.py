"""What every task offers a student: the objectives that check takes for it, and the formats that it is exported in.

Names alone, so that nothing is imported to list them. Runs of the recipes hold the table against what check says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Offered:
    """Of one task, whatever its data and models (some of it goes with some of them only; check says which and why).

    `by_default`: what a student learns by whose recipe names no objectives. `others`: what it may name beside or instead.
    `formats`: what files there are beside the plain folder, which there always is. `without`: why not others, in words.
    """

    by_default: tuple[str, ...]
    others: tuple[str, ...]
    formats: tuple[str, ...] = ("onnx", "int8")
    without: str = ""


_TAUGHT = ("labels", "logits")
_CLASSES = ("dkd", "dist", "listwise", "margins")
_STATES = ("hidden", "weights")
_TOKENS = Offered(_TAUGHT, ("dkd", "listwise", "margins", *_STATES))
_EXAMPLES = Offered(_TAUGHT, (*_CLASSES, *_STATES, "saliency"))

OFFERED: Mapping[str, Offered] = {
    "text-classification": _EXAMPLES,
    "token-classification": _EXAMPLES,
    "question-answering": Offered(_TAUGHT, ("dkd", "margins", *_STATES, "saliency")),
    "seq2seq": _TOKENS,
    "image-classification": Offered(_TAUGHT, (*_EXAMPLES.others, "maps")),
    "semantic-segmentation": Offered(_TAUGHT, (*_CLASSES, *_STATES, "maps", "channels", "pairwise")),
    "image-segmentation": Offered(("segments", "masks"), (*_STATES, "maps"), without="int8 of EoMT alone"),
    "audio-classification": _EXAMPLES,
    "speech-recognition": Offered(("ctc", "logits"), ("labels", *_CLASSES, *_STATES)),
    "text-to-speech": Offered(("spectrogram", "frames"), _STATES),
    "object-detection": Offered(("objects", "queries"), ("edges", *_STATES, "maps"), without="int8 of YOLOS alone"),
    "causal-lm": _TOKENS,
    "masked-lm": _TOKENS,
    "embedding": Offered(("embedding",), ("similarities", "contrastive", "affinities", "interactive", *_TAUGHT, *_CLASSES,
                                          *_STATES)),
    "reranking": Offered(("logits",), ("labels", "ranking", *_STATES, "saliency")),
    "image-text": Offered(("embedding", "affinities"), ("similarities", "contrastive", "interactive", *_STATES)),
    "image-text-to-text": Offered(_TAUGHT, _TOKENS.others,
                                  without="of models that read pictures in tokens of a number, from left to right: LLaVA, "
                                          "InternVL, Idefics3, SmolVLM"),
    "recommendation": _TOKENS,
    "several": Offered(_TAUGHT, _CLASSES),
}
