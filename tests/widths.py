"""What of the families can be made narrower, and by which numbers of their configs: shared by tests and docs."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Cuttable:
    """ffn, heads, hidden: the fields by which each is cut by itself; bound: heads that can only be cut with `hidden`.

    made_anew: weights along the hidden state are made by the class and not saved, so that it cannot be cut.
    """

    ffn: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    bound: tuple[str, ...] = ()
    made_anew: bool = False


def _encoder(**fields: tuple[str, ...]) -> Cuttable:
    usual = {"ffn": ("intermediate_size",), "hidden": ("hidden_size",), "bound": ("num_attention_heads",)}
    return Cuttable(**{**usual, **fields})


def _decoder(**fields: tuple[str, ...]) -> Cuttable:
    return _free(heads=("num_attention_heads", "num_key_value_heads"), **fields)


def _free(**fields: tuple[str, ...]) -> Cuttable:
    usual = {"ffn": ("intermediate_size",), "heads": ("num_attention_heads",), "hidden": ("hidden_size",)}
    return Cuttable(**{**usual, **fields})


_BART = Cuttable(("encoder_ffn_dim", "decoder_ffn_dim"), (), ("d_model",),
                 ("encoder_attention_heads", "decoder_attention_heads"))
_T5 = Cuttable(("d_ff",), ("num_heads",), ("d_model",))
_TWO = ("text_config", "vision_config")

CUTTABLE = {
    "bert": _encoder(), "roberta": _encoder(), "electra": _encoder(), "modernbert": _encoder(), "longformer": _encoder(),
    "mpnet": _encoder(), "deberta-v2": _encoder(hidden=("hidden_size", "pooler_hidden_size")),
    "distilbert": Cuttable(("hidden_dim",), (), ("dim",), ("n_heads",)),
    "gpt2": Cuttable(("n_inner",), (), ("n_embd",), ("n_head",)),
    "gpt-neo": Cuttable(("intermediate_size",), (), ("hidden_size",), ("num_heads",)),
    **dict.fromkeys(("llama", "qwen2", "qwen3", "gemma2", "mixtral", "gemma4", "nemotron-h"), _decoder()),
    "t5": _T5, "mt5": _T5, "bart": _BART, "whisper": _BART, "marian": replace(_BART, made_anew=True),
    "vit": _free(), "deit": _free(), "beit": _free(), "dinov2": _free(ffn=("mlp_ratio",)),
    "swin": Cuttable(("mlp_ratio",), (), ("embed_dim",), ("num_heads",)),
    "segformer": Cuttable(("mlp_ratios",)), "convnext": Cuttable(), "resnet": Cuttable(),
    "wav2vec2": Cuttable(("intermediate_size",)),
    "clip": Cuttable(*(tuple(f"{one}.{name}" for one in _TWO) for name in ("intermediate_size",)), (),
                     tuple(f"{one}.hidden_size" for one in _TWO), tuple(f"{one}.num_attention_heads" for one in _TWO)),
    "vit-gpt2": Cuttable(("encoder.intermediate_size", "decoder.n_inner"), ("encoder.num_attention_heads",)),
}
