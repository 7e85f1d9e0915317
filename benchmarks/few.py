"""What is a teacher worth where every example has its label, and where few have? A case of `gap`, a student of two layers.

    python -m benchmarks.few ud-ewt
    python -m benchmarks.few xquad --ways all

all: teacher, student and labels alone learn from the same examples. few: student and labels alone have some of the labels,
and the student's teacher, that of `all`, answers about the others too: a model that knows more than whoever distils it. few
of both: the teacher has learnt from the same few labels. The same command again continues, and finds what is finished.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.gap.cases import CASES, Case
from benchmarks.inputs import add_data_option
from benchmarks.students import distil, name_of, parser, show
from stilla.runtime.quiet import quiet_libraries

WAYS = ("all", "few", "few of both")
FEW_PASSES = 30.0
"""Of a teacher over few examples, as in `gap`'s cases of few labels."""


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/few", layers=[2], epochs=3.0, learning_rate=3e-4, limit=4000)
    made.add_argument("case", choices=list(CASES))
    made.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    made.add_argument("--labels", type=int, default=300, help="of the few")
    made.add_argument("--validation", type=int, default=500, help="examples, which are looked at after every epoch")
    add_data_option(made)
    options = made.parse_args()
    quiet_libraries()
    case, whole = CASES[options.case], options.output / options.case
    data = {**case.data, "train": str(drawn(case, options, whole)), "limit": None}
    few = {**data, "limit": options.labels, "unlabelled": {"rest": True}}
    for way in options.ways:
        trained = way == "few"
        teacher = whole / "all" / name_of(max(options.layers)) / "teacher" if trained else case.start(whole / "whole")
        base = {"task": case.task, "data": data if way == "all" else few}
        show(f"{options.case}, {way}", distil(at(options, case, way, whole), base, teacher, trained=trained))


def at(options: argparse.Namespace, case: Case, way: str, whole: Path) -> argparse.Namespace:
    """The options of one way: its folder, and how its teacher learns where nothing else is said."""
    passes = FEW_PASSES if way == "few of both" else case.teacher["epochs"]
    return argparse.Namespace(**{
        **vars(options), "output": whole / way.replace(" ", "-"), "teacher_epochs": options.teacher_epochs or passes,
        "teacher_learning_rate": options.teacher_learning_rate or case.teacher["learning_rate"]})


def drawn(case: Case, options: argparse.Namespace, whole: Path) -> Path:
    """The case's data with no more training and validation examples than are asked for, drawn by a fixed seed."""
    folder = whole / f"data-{options.limit}-{options.validation}"  # other numbers are other data
    if not (folder / "test.parquet").is_file():
        case.prepare(options.data, whole / "whole")
        for split, most in {"train": options.limit, "validation": options.validation, "test": None}.items():
            rows = pq.read_table(whole / "whole" / f"{split}.parquet")
            if most is not None and most < len(rows):
                rows = rows.take(random.Random(0).sample(range(len(rows)), most))  # with what names its classes
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(rows, folder / f"{split}.parquet")
    return folder


if __name__ == "__main__":
    main()
