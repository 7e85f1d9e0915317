"""A small wav2vec 2.0 learns spoken digits from random weights, or a small w2v-BERT strings of them, and is distilled into
fewer layers; or a small Whisper, whose students keep its encoder and have fewer layers that write.

    python -m benchmarks.sounds digits --data FSDD
    python -m benchmarks.sounds strings --data FSDD_DIGIT_STRINGS --labelled 48
    python -m benchmarks.sounds written --data FOLDER_OF_BOTH

`digits` are classes of the Free Spoken Digit Dataset's 3,000 recordings (2,400 to learn from) of six people at 8 kHz;
`strings` are three to six of them in a row with what is said (480 to learn from), for CTC; w2v-BERT hears them as a
spectrogram. With `--labelled` students know what is said in so many of them, and hear the others. `written` are the same for
an encoder-decoder, whose teacher also learns from the digits one by one: of so few strings alone it finds no alignment. The
objectives are the defaults. The same command again continues.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    GenerationConfig,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from benchmarks.inputs import add_data_option, spoken_digits
from benchmarks.students import distil, parser, show
from stilla.runtime.quiet import quiet_libraries

_SIZES: dict[str, Any] = {
    "hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 192, "conv_dim": (48,) * 4,
    "conv_kernel": (10, 8, 4, 4), "num_feat_extract_layers": 4, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 96}


_HEARING = 3
"""Layers of Whisper's encoder."""
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_END, _START, _NO_TIMES = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/sounds", layers=[2, 1], teacher_epochs=12.0, teacher_learning_rate=1e-3,
                  epochs=8.0, learning_rate=1e-3)
    made.add_argument("sounds", choices=["digits", "strings", "written"])
    made.add_argument("--labelled", type=int, help="of `strings`: of so many students know what is said")
    add_data_option(made)
    options = made.parse_args()
    quiet_libraries()
    options.output = options.output / options.sounds
    start = options.output / "start"
    if not (start / "config.json").is_file():
        {"digits": classifier, "strings": recogniser, "written": writer}[options.sounds](start)
    place = spoken_digits(options.data, "fsdd" if options.sounds == "digits" else "fsdd_digit_strings")
    data = {"train": str(place), "limit": options.limit}
    task = {"task": "audio-classification", "data": {**data, "label": "label"}} if options.sounds == "digits" else {
        "task": "speech-recognition", "data": {**data, "text": "transcription"}}
    if options.sounds == "written":
        options.export = []  # recognisers that write are not exported
        both = with_single_digits(place, spoken_digits(options.data, "fsdd"), options.output)
        show(options.sounds, distil(options, task, start, lambda depth: {
            "layers": {"encoder": _HEARING, "decoder": depth}, "freeze": ["encoder"]}, more=both))
    elif options.sounds == "strings" and options.labelled:
        rows = read(place, "transcription")
        heard = {name: str(table(some, options.output / f"{name}.parquet")) for name, some in (
            ("train", rows[: options.labelled]), ("unlabelled", rows[options.labelled :]))}
        measured = {name: str(place / name) for name in ("validation", "test")}
        few = {**task, "data": {**data, **heard, **measured, "audio": "audio", "text": "transcription"}}
        show(options.sounds, distil(options, few, start, more=table(rows, options.output / "teacher.parquet")))
    else:
        show(options.sounds, distil(options, task, start))


def classifier(place: Path) -> None:
    """Frames of 10 ms, normalised over a sound's own time."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(**_SIZES, conv_stride=(5, 4, 2, 2), num_labels=10)
    Wav2Vec2ForSequenceClassification(config).save_pretrained(place)
    Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=True).save_pretrained(place)


def recogniser(place: Path) -> None:
    """Frames of 40 ms at 8 kHz; the letters of English."""
    place.mkdir(parents=True, exist_ok=True)
    names = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
    (place / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    Wav2Vec2CTCTokenizer(str(place / "vocab.json")).save_pretrained(place)
    torch.manual_seed(0)
    Wav2Vec2BertForCTC(Wav2Vec2BertConfig(
        hidden_size=96, num_hidden_layers=4, num_attention_heads=4, intermediate_size=192, conv_depthwise_kernel_size=15,
        vocab_size=len(names), pad_token_id=0, hidden_dropout=0.1, attention_dropout=0.1, activation_dropout=0.1,
        # SpecAugment's spans of ten frames would hide whole digits
        apply_spec_augment=False, layerdrop=0.0)).save_pretrained(place)
    SeamlessM4TFeatureExtractor(sampling_rate=8000).save_pretrained(place)


def writer(place: Path) -> None:
    """Hears six seconds, in frames of 40 mel bins, 50 a second; writes a digit as one token."""
    made = Tokenizer(BPE())
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    made.train_from_iterator([f" {one}" for one in _DIGITS] * 10, BpeTrainer(
        initial_alphabet=ByteLevel.alphabet(), vocab_size=400, show_progress=False))
    rules = json.loads(made.to_str())["model"]
    vocabulary = {**rules["vocab"], _END: len(rules["vocab"])}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in rules["merges"]], pad_token=_END)
    tokenizer.add_tokens([_START, _NO_TIMES], special_tokens=True)
    end, start = (tokenizer.convert_tokens_to_ids(one) for one in (_END, _START))
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(WhisperConfig(
        vocab_size=len(tokenizer), d_model=96, encoder_layers=_HEARING, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=192, decoder_ffn_dim=192, num_mel_bins=40, max_source_positions=150,
        max_target_positions=32, pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=start))
    model.generation_config = GenerationConfig(decoder_start_token_id=start, eos_token_id=end, pad_token_id=end,
                                               bos_token_id=end, is_multilingual=False)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    WhisperFeatureExtractor(feature_size=40, sampling_rate=8000, hop_length=160, n_fft=320, chunk_length=6).save_pretrained(
        place)


def with_single_digits(strings: Path, digits: Path, output: Path) -> Path:
    """A table of the training recordings of both, with what is said in each; strings are made of their own split's digits."""
    return table(read(strings, "transcription") + read(digits, "label_name"), output / "teacher.parquet")


def read(folder: Path, column: str) -> list[tuple[Path, str]]:
    """The training recordings of a folder, and what its metadata say of each in this column."""
    with (folder / "train" / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return [(folder / "train" / row["file_name"], row[column]) for row in csv.DictReader(file)]


def table(rows: Sequence[tuple[Path, str]], made: Path) -> Path:
    made.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict({"audio": [{"bytes": path.read_bytes(), "path": path.name} for path, _ in rows],
                       "transcription": [text for _, text in rows]}).to_parquet(made)
    return made


if __name__ == "__main__":
    main()
