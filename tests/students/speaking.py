"""Small tokenizers of every kind that is in use, trained on a few lines in a moment."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import transformers as hf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Tokenizer,
    XLMRobertaTokenizer,
)

SUBJECTS = ("the cat", "an unaffable dog", "every playing child", "my grandmother", "Łukasz", "the naïve café owner")
VERBS = ("sat on", "was running under", "replayed", "unwillingly liked", "forgot", "described", "überholte")
OBJECTS = ("the mat.", "a mountain of unread letters!", "12,500 euros?", "the playground (again)", "κόσμος και λόγος",
           "das Straßenschild", "déjà vu", "日本語のテキスト", "nothing at all...")
CORPUS = tuple(f"{subject} {verb} {thing}" for subject in SUBJECTS for verb in VERBS for thing in OBJECTS)
SOME = tuple(line for line in CORPUS if "cat" in line or "playing" in line)
"""What a student learns from: a part of what the tokenizers were trained on."""
STRANGE = (
    "", " ", "  two  spaces ", "\n\ttabs\n", "unaffable replaying grandmothers", "ŁÓDŹ", "x", "日", "😀 and 🏴",
    "a\u0301b", "ﬁne",
    "¿qué?", "\u200bzero", "ABC abc", "3.14159", "<s> [SEP] </s>", "λ", "un", "überüber", "it's", "e-mail@example.com",
    "\u2581under", "ß", "\U0001F469\u200D\U0001F680", "混ぜ書き abc")


def _trained(model: models.Model, trainer: trainers.Trainer, pre: pre_tokenizers.PreTokenizer,
             normalizer: normalizers.Normalizer | None = None) -> dict[str, object]:
    made = Tokenizer(model)
    made.pre_tokenizer = pre
    if normalizer is not None:
        made.normalizer = normalizer
    made.train_from_iterator(CORPUS, trainer)
    found: dict[str, object] = json.loads(made.to_str())["model"]
    return found


@functools.cache
def _wordpieces() -> dict[str, int]:
    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    model = _trained(models.WordPiece(unk_token="[UNK]"), trainer, pre_tokenizers.BertPreTokenizer(),
                     normalizers.BertNormalizer(lowercase=True))
    return dict(model["vocab"])  # type: ignore[call-overload,no-any-return]


def bert() -> PreTrainedTokenizerBase:
    """WordPiece, lower case."""
    made: PreTrainedTokenizerBase = BertTokenizer(vocab=dict(_wordpieces()), model_max_length=64)
    return made


@functools.cache
def _bytes() -> str:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=520, special_tokens=special, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    return json.dumps(_trained(models.BPE(), trainer, pre_tokenizers.ByteLevel(add_prefix_space=False)))


def _byte_bpe(*, ignore_merges: bool = False) -> Tokenizer:
    model = json.loads(_bytes())
    made = Tokenizer(models.BPE(model["vocab"], [tuple(pair) for pair in model["merges"]], ignore_merges=ignore_merges))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return made


def roberta() -> PreTrainedTokenizerBase:
    """BPE over bytes, <s> before and </s> behind."""
    made = _byte_bpe()
    made.post_processor = processors.RobertaProcessing(sep=("</s>", 2), cls_token=("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>", unk_token="<unk>",
        pad_token="<pad>", mask_token="<mask>", model_max_length=64)


def gpt2() -> PreTrainedTokenizerBase:
    """BPE over bytes with an end of text, and tokens that were added for conversations."""
    made = PreTrainedTokenizerFast(tokenizer_object=_byte_bpe(), eos_token="</s>", pad_token="<pad>", model_max_length=64)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.add_tokens(["blockchain"])
    made.chat_template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    return made


def llama3() -> PreTrainedTokenizerBase:
    """BPE over bytes in which words that are tokens need no merges."""
    made = _byte_bpe(ignore_merges=True)
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                   model_max_length=64)


@functools.cache
def _sentencepieces() -> str:
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False, limit_alphabet=60)
    model = _trained(models.BPE(fuse_unk=True, unk_token="<unk>"), trainer, pre_tokenizers.Metaspace(split=True))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *dict(model["vocab"])]  # type: ignore[call-overload]
    return json.dumps({"vocab": {token: number for number, token in enumerate(dict.fromkeys(tokens))},
                       "merges": model["merges"]})


def llama() -> PreTrainedTokenizerBase:
    """BPE over characters, with bytes for those that are no tokens."""
    model = json.loads(_sentencepieces())
    made: PreTrainedTokenizerBase = LlamaTokenizer(
        vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], model_max_length=64, pad_token="</s>")
    return made


@functools.cache
def _unigrams() -> str:
    trainer = trainers.UnigramTrainer(vocab_size=350, show_progress=False, unk_token="<unk>", special_tokens=["<unk>"])
    pre = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    model = _trained(models.Unigram(), trainer, pre)
    return json.dumps([piece for piece in model["vocab"] if piece[0] != "<unk>"])  # type: ignore[attr-defined]


def t5() -> PreTrainedTokenizerBase:
    """Unigram, with sentinels behind."""
    pieces = [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], *json.loads(_unigrams())]
    sentinels = [[f"<extra_id_{number}>", 0.0] for number in range(3, -1, -1)]
    made: PreTrainedTokenizerBase = T5Tokenizer(
        vocab=[(piece, score) for piece, score in (*pieces, *sentinels)], extra_ids=4, model_max_length=64)
    return made


def xlm_roberta() -> PreTrainedTokenizerBase:
    """Unigram, with special tokens at both ends."""
    pieces = [["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], *json.loads(_unigrams()), ["<mask>", 0.0]]
    made: PreTrainedTokenizerBase = XLMRobertaTokenizer(
        vocab=[(piece, score) for piece, score in pieces], model_max_length=64)
    return made


KINDS: Mapping[str, Callable[[], PreTrainedTokenizerBase]] = {
    "bert": bert, "roberta": roberta, "gpt2": gpt2, "llama3": llama3, "llama": llama, "t5": t5, "xlm_roberta": xlm_roberta}


def _of_unigrams(kind: Any, before: Sequence[str], behind: Sequence[str] = (), **options: Any) -> PreTrainedTokenizerBase:
    pieces = [(piece, score) for piece, score in json.loads(_unigrams())]
    made: PreTrainedTokenizerBase = kind(
        vocab=[*((one, 0.0) for one in before), *pieces, *((one, 0.0) for one in behind)], **options)
    return made


def _of_bytes(kind: Any, *behind: str) -> PreTrainedTokenizerBase:
    model = json.loads(_bytes())
    vocabulary = dict(model["vocab"])
    vocabulary |= {one: len(vocabulary) + number for number, one in enumerate(behind)}
    made: PreTrainedTokenizerBase = kind(vocab=vocabulary, merges=[tuple(pair) for pair in model["merges"]])
    return made


def _of_sentencepieces(kind: Any, *before: str, **options: Any) -> PreTrainedTokenizerBase:
    model = json.loads(_sentencepieces())
    tokens = [*before, *(one for one in model["vocab"] if one not in {*before, "<unk>", "<s>", "</s>"})]
    made: PreTrainedTokenizerBase = kind(vocab={token: number for number, token in enumerate(tokens)},
                                         merges=[tuple(pair) for pair in model["merges"]], **options)
    return made


FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")
CLASSES: Mapping[str, Callable[[], PreTrainedTokenizerBase]] = {
    "albert": lambda: _of_unigrams(hf.AlbertTokenizer, ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")),
    "bigbird": lambda: _of_unigrams(hf.BigBirdTokenizer, ("<unk>", "<pad>", "</s>", "<s>"), ("[SEP]", "[CLS]", "[MASK]")),
    "camembert": lambda: _of_unigrams(
        hf.CamembertTokenizer, ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"), ("<mask>",)),
    "deberta-v2": lambda: _of_unigrams(hf.DebertaV2Tokenizer, ("[PAD]", "[CLS]", "[SEP]", "[UNK]"), ("[MASK]",)),
    "mbart": lambda: _of_unigrams(hf.MBartTokenizer, FAIRSEQ, src_lang="en_XX", tgt_lang="de_DE"),
    "mbart50": lambda: _of_unigrams(hf.MBart50Tokenizer, FAIRSEQ, src_lang="en_XX", tgt_lang="de_DE"),
    "pegasus": lambda: _of_unigrams(hf.PegasusTokenizer, (
        "<pad>", "</s>", "<mask_1>", "<mask_2>", *(f"<unk_{number}>" for number in range(2, 103)), "<unk>")),
    "xlnet": lambda: _of_unigrams(hf.XLNetTokenizer, ("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>")),
    "distilbert": lambda: hf.DistilBertTokenizer(vocab=dict(_wordpieces())),
    "mpnet": lambda: hf.MPNetTokenizer(vocab={token: number for number, token in enumerate(
        (*FAIRSEQ, *_wordpieces(), "<mask>"))}),
    "bart": lambda: _of_bytes(hf.BartTokenizer),
    "roberta": lambda: _of_bytes(hf.RobertaTokenizer),
    "gpt2": lambda: _of_bytes(hf.GPT2Tokenizer, "<|endoftext|>"),
    "qwen2": lambda: _of_bytes(hf.Qwen2Tokenizer, "<|endoftext|>"),
    "whisper": lambda: _of_bytes(hf.WhisperTokenizer, "<|endoftext|>"),
    "codellama": lambda: _of_sentencepieces(hf.CodeLlamaTokenizer, "<unk>", "<s>", "</s>"),
    "gemma": lambda: _of_sentencepieces(hf.GemmaTokenizer, "<pad>", "<eos>", "<bos>", "<unk>", "<mask>"),
    "nllb": lambda: _of_sentencepieces(hf.NllbTokenizer, *FAIRSEQ, src_lang="eng_Latn", tgt_lang="deu_Latn"),
}
"""Classes of transformers that build their rules themselves, some of them by fixed numbers."""
