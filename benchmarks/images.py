"""A small Vision Transformer learns pictures from random weights, and is distilled into 3, 2 and 1 of its 6 layers.

    python -m benchmarks.images digits
    python -m benchmarks.images flowers --data FLOWER_PHOTOS

`digits` come along with scikit-learn (1,797 pictures of 8 by 8 pixels); `flowers` are five kinds on 3,480 photos,
seen at 64 by 64 pixels with light augmentation. The objectives are the defaults. The same command again continues.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.inputs import add_data_option, flowers
from benchmarks.students import distil, parser, show
from stilla.runtime.quiet import quiet_libraries
from stilla.samples.digits import digits, digits_teacher

TEACHERS = {"digits": {"size": 8, "patch": 2}, "flowers": {"size": 64, "patch": 8}}
"""Sizes in pixels; 16 and 64 patches."""


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/images", layers=[3, 2, 1], teacher_epochs=30.0, teacher_learning_rate=1e-3,
                  epochs=20.0, learning_rate=1e-3)
    made.add_argument("pictures", choices=list(TEACHERS))
    add_data_option(made)
    options = made.parse_args()
    quiet_libraries()
    options.output = options.output / options.pictures
    data = {**pictures(options), "limit": options.limit}
    start = options.output / "start"
    if not (start / "config.json").is_file():
        digits_teacher(start, **TEACHERS[options.pictures])
    show(options.pictures, distil(options, {"task": "image-classification", "data": data}, start))


def pictures(options: argparse.Namespace) -> dict[str, Any]:
    """The recipe's data section."""
    if options.pictures == "flowers":
        return {"train": str(flowers(options.data)), "image": "image", "label": "label", "augment": "light"}
    folder: Path = options.output / "data"
    if not (folder / "train.parquet").is_file():
        digits(folder)
    return {"train": str(folder)}


if __name__ == "__main__":
    main()
