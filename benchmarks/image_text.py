"""A small model of two towers learns flowers and their names, and is distilled into two of its six layers for pictures.

    python -m benchmarks.image_text --data FLOWER_PHOTOS
    python -m benchmarks.image_text --data FLOWER_PHOTOS --labelled 250
    python -m benchmarks.image_text --captions COCO_MINI --layers 1

Photos of five kinds, at 48 by 48 pixels, with texts made of the kind by three templates; everything from random weights.
What is each way of teaching worth over the pairs alone (`contrastive`)? With `--labelled`: where only so many photos have a
name, the others are pictures by themselves, and the teacher has seen all names. With `--captions`: a folder with pictures and
five captions each (a smoke test: 26 pictures teach nothing). The same command again continues.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from benchmarks.inputs import add_data_option, flowers
from benchmarks.methods import differences, qualities, show, sizes, taught
from benchmarks.students import parser
from stilla.runtime.quiet import quiet_libraries

WAYS: dict[str, dict[str, Any]] = {
    "vectors and affinities": {"objectives": [{"kind": "embedding"}, {"kind": "affinities"}]},
    "vectors": {"objectives": [{"kind": "embedding"}]},
    "affinities": {"objectives": [{"kind": "affinities"}]},
    "interactive": {"objectives": [{"kind": "embedding"}, {"kind": "interactive"}]},
    "all": {"objectives": [{"kind": "embedding"}, {"kind": "affinities"}, {"kind": "interactive"}, {"kind": "contrastive"}]},
}
TEMPLATES = ["a photo of {label}", "{label} in a garden", "a picture of {label} flowers"]
SPECIAL, LENGTH = ["<pad>", "<unk>", "<start>", "<end>"], 96  # an end of number 2 is a legacy form of CLIP


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/image_text", layers=[2], teacher_epochs=20.0, teacher_learning_rate=1e-3,
                  epochs=10.0, learning_rate=1e-3, batch_size=64)
    made.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    made.add_argument("--labelled", type=int, help="photos of which the student and labels alone are told the name")
    made.add_argument("--captions", type=Path, help="a folder of pictures with captions, in place of the flowers")
    add_data_option(made)
    options = made.parse_args()
    quiet_libraries()
    name = "captions" if options.captions else "flowers"
    options.output = options.output / name
    data: dict[str, Any] = {"train": str(flowers(options.data)), "label": "label", "template": TEMPLATES} \
        if options.captions is None else {"train": str(options.captions)}
    start = options.output / "start"
    if not (start / "config.json").is_file():
        begin(start)
    more: Path | None = None
    if options.labelled and not options.captions:
        more = flowers(options.data) / "train.parquet"
        data |= {"unlabelled": {"rest": True}}
        options.limit = options.labelled
        options.output = options.output / f"labelled-{options.labelled}"
    for layers in options.layers:
        base: dict[str, Any] = {
            "task": "image-text", "data": {**data, "image": "image", "limit": options.limit}, "allow_weak_teacher": True,
            "student": {"layers": {"vision": layers, "text": 1}}}
        output = options.output
        options.output = output / str(layers)
        runs = taught(options, base, start, {way: WAYS[way] for way in options.ways}, more=more)
        options.output = output
        scores = {way: run.scores for way, run in runs.items()}
        show(f"### {name}, {layers} layers for pictures", qualities(scores), differences(scores),
             sizes(next(iter(scores.values()))))


def begin(folder: Path, *, width: int = 96, vectors: int = 64, size: int = 48, patch: int = 8) -> None:
    """A model with six layers for pictures and two for texts, which reads letters; random weights."""
    letters = [chr(code) for code in range(32, 127)]
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters])}
    rules = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    rules.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    rules.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules, pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<unk>",
        model_max_length=LENGTH, model_input_names=["input_ids", "attention_mask"])
    sizes = {"hidden_size": width, "num_attention_heads": 4, "intermediate_size": 3 * width}
    torch.manual_seed(0)
    text = {**sizes, "num_hidden_layers": 2, "vocab_size": len(vocabulary), "max_position_embeddings": LENGTH,
            "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    vision = {**sizes, "num_hidden_layers": 6, "image_size": size, "patch_size": patch}
    CLIPModel(CLIPConfig(projection_dim=vectors, text_config=text, vision_config=vision)).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)


if __name__ == "__main__":
    main()
