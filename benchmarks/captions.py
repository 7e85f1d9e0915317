"""A small model of pictures and letters learns captions, and is distilled into one of its language layers.

    python -m benchmarks.captions --data STILLA_DATA --seeds 1
    python -m benchmarks.captions --data STILLA_DATA --student smaller

Photos of COCO with five captions each, everything from random weights: 26 pictures teach no model to see, so that what is
looked at is whether it learns at all, and what the teacher's distribution at every letter is worth over captions alone. A
student that was not trained stands beside. `--student smaller` sees pictures in a quarter of the teacher's tokens. The same
command again continues.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from benchmarks.inputs import add_data_option, data_set
from benchmarks.methods import differences, qualities, show, sizes, taught
from benchmarks.students import parser, run_of
from stilla.runtime.quiet import quiet_libraries

WAYS: dict[str, dict[str, Any]] = {
    "labels and logits": {"objectives": [{"kind": "labels", "weight": 0.3}, {"kind": "logits", "weight": 0.7,
                                                                             "temperature": 1.0}]},
    "logits": {"objectives": [{"kind": "logits", "temperature": 1.0}]},
}
SPECIAL, PATCH, LENGTH = ["<pad>", "<unk>", "<start>", "<end>", "<image>"], 16, 256


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/captions", teacher_epochs=12.0, teacher_learning_rate=2e-3, epochs=6.0,
                  learning_rate=2e-3, batch_size=16, export=[])
    made.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    made.add_argument("--student", choices=["layers", "smaller"], default="layers")
    add_data_option(made)
    options = made.parse_args()
    quiet_libraries()
    place = data_set(options.data, "coco_mini_ccby", "photos with the columns image, captions")
    starts = {"teacher": begin(options.output / "start", layers=3, size=64, seed=0),
              "smaller": begin(options.output / "smaller", layers=1, size=32, seed=1)}
    student: dict[str, Any] = {"layers": {"text": 1}} if options.student == "layers" else {"model": str(starts["smaller"])}
    base: dict[str, Any] = {
        "task": "image-text-to-text", "student": student, "allow_weak_teacher": True,
        "data": {"train": str(place), "image": "image", "completion": "captions", "limit": options.limit},
        "evaluate": {"generation": {"max_new_tokens": 48}, "speed": False}}
    options.output /= options.student
    runs = taught(options, base, starts["teacher"], {way: WAYS[way] for way in options.ways})
    teacher = options.output / options.ways[0].replace(" ", "-") / "teacher"
    one_step = {"max_steps": 1, "learning_rate": 1e-12, "objectives": [{"kind": "labels"}]}
    untrained = run_of({**base, "teacher": str(teacher), "output": str(options.output / "untrained"),
                        "cache": {"form": "none"}, "distill": one_step}, ())
    scores = {**{way: run.scores for way, run in runs.items()}, "not trained": untrained.scores}
    show(f"### captions, {options.student}", qualities(scores), differences({way: scores[way] for way in runs}),
         sizes(next(iter(scores.values()))))


def begin(folder: Path, *, layers: int, size: int, seed: int, width: int = 96) -> Path:
    """A LLaVA with so many layers that write and two that see, which reads letters; random weights."""
    if (folder / "config.json").is_file():
        return folder
    letters = [chr(code) for code in range(32, 127)]
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters])}
    rules = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    rules.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules, pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<unk>",
        model_max_length=LENGTH, extra_special_tokens={"image_token": "<image>"})
    torch.manual_seed(seed)
    text = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=LENGTH, pad_token_id=0, bos_token_id=2,
        eos_token_id=3)
    vision = CLIPVisionConfig(hidden_size=width, intermediate_size=3 * width, num_hidden_layers=3, num_attention_heads=4,
                              image_size=size, patch_size=PATCH)
    model = LlavaForConditionalGeneration(LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=vocabulary["<image>"]))
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 3, 0
    model.save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"height": size, "width": size}, do_center_crop=False)
    LlavaProcessor(images, tokenizer, patch_size=PATCH, vision_feature_select_strategy="default",
                   num_additional_image_tokens=1).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
