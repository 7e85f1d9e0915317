"""A small translation model learns English to German, and a student with a shallow decoder is taught in several ways.

    python -m benchmarks.tatoeba --data TATOEBA_EN_DE

Tokenizer (one byte-level BPE for both languages) and teacher (a Marian of 3 and 3 layers) are trained here, on everyday
sentences of at most eight words. The student keeps the encoder and one layer of the decoder, which is what writing
costs. It learns the same pairs from labels alone, from the live teacher, from the top 50 of its answers, from 50 draws,
and the teacher's own translations instead of the data's. The same command again continues.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
)

from benchmarks.inputs import add_data_option, tatoeba
from benchmarks.methods import LABELS, LOGITS, Way, costs, differences, qualities, show, sizes, taught
from benchmarks.students import parser
from benchmarks.tables import markdown
from stilla.runtime.quiet import quiet_libraries

WAYS: dict[str, Way] = {
    "live": {"objectives": [LABELS, LOGITS], "cache": "none"},
    "top 50": {"objectives": [LABELS, LOGITS], "cache": {"form": "top_k", "k": 50}},
    "50 samples": {"objectives": [LABELS, LOGITS], "cache": {"form": "samples", "samples": 50}},
    "teacher's texts": {"objectives": [{"kind": "labels"}], "completions": {"by": "teacher", "max_new_tokens": 40}},
}


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/tatoeba", teacher_epochs=5.0, teacher_learning_rate=2e-3, epochs=1.0,
                  learning_rate=1e-3, limit=100_000)
    made.add_argument("--batch-size", type=int, default=64, help="pairs of sentences")
    made.add_argument("--words", type=int, default=8, help="the longest sentence in English")
    add_data_option(made)
    options = made.parse_args()
    quiet_libraries()
    folder, start = options.output / "data", options.output / "start"
    if not (folder / "train.parquet").is_file():
        write(options, folder)
    if not (start / "config.json").is_file():
        pairs = _read(folder / "train.parquet")
        untrained([*pairs["en"], *pairs["de"]], start)
    data = {"train": str(folder), "source": "en", "target": "de", "max_length": 64, "max_target_length": 64}
    base = {"task": "seq2seq", "data": data, "student": {"layers": {"encoder": 3, "decoder": 1}},
            "evaluate": {"generation": {"max_new_tokens": 40, "batch_size": 64}}}
    runs = taught(options, base, start, WAYS)
    scores = {name: run.scores for name, run in runs.items()}
    show("tatoeba", qualities(scores), differences(scores), costs(runs), sizes(scores["live"]),
         writing({"teacher": runs["live"].folder / "teacher", "student": runs["live"].student},
                 list(_read(folder / "test.parquet")["en"])))


def write(options: argparse.Namespace, folder: Path) -> None:
    """Short pairs: those to train on drawn at random, all test pairs, every fifth one for validation."""
    source = tatoeba(options.data)
    folder.mkdir(parents=True, exist_ok=True)
    for split, step in (("test", 1), ("validation", 5), ("train", 1)):
        short = _short(_read(source / f"{split}.parquet"), options.words)
        if split == "train":
            short = short.shuffle(seed=0).select(range(min(options.limit, len(short))))
        short.select(range(0, len(short), step)).to_parquet(folder / f"{split}.parquet")


def untrained(texts: Iterable[str], folder: Path, *, vocabulary: int = 4096, layers: int = 3, width: int = 128) -> Path:
    """A Marian with random weights and a tokenizer learnt from `texts`; an end of text is put after every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<pad>", "</s>"], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", model_max_length=64,
                            clean_up_tokenization_spaces=False).save_pretrained(folder)
    config = MarianConfig(
        vocab_size=vocabulary, d_model=width, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width, max_position_embeddings=64,
        scale_embedding=True, activation_function="relu", pad_token_id=0, eos_token_id=1, bos_token_id=None,
        decoder_start_token_id=0, forced_eos_token_id=None)
    torch.manual_seed(0)
    MarianMTModel(config).save_pretrained(folder)
    return folder


def writing(folders: dict[str, Path], sources: list[str], rounds: int = 3) -> str:
    """How fast models write, by processor time: all sources, greedily, in batches of 64, the models in turns."""
    tokenizer = AutoTokenizer.from_pretrained(next(iter(folders.values())))
    written = {name: AutoModelForSeq2SeqLM.from_pretrained(folder).eval() for name, folder in folders.items()}
    batches = [tokenizer(sources[start : start + 64], return_tensors="pt", padding=True)
               for start in range(0, len(sources), 64)]
    times: dict[str, list[float]] = {name: [] for name in written}
    for _ in range(rounds):
        for name, model in written.items():
            began = time.process_time()
            for batch in batches:
                model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=40)
            times[name].append(time.process_time() - began)
    first = min(next(iter(times.values())))
    return markdown(["", "texts written per second of one processor", ""], [
        [name, f"{len(sources) / min(taken):.0f}", f"{first / min(taken):.1f}×"] for name, taken in times.items()])


def _short(pairs: Dataset, words: int) -> Dataset:
    return pairs.select([row for row, text in enumerate(pairs["en"]) if len(text.split()) <= words])


def _read(file: Path) -> Dataset:
    return load_dataset("parquet", data_files=str(file), split="train")


if __name__ == "__main__":
    main()
