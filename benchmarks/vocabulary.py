"""What a smaller vocabulary saves of all-MiniLM-L6-v2 on the texts of clinc150, and what it costs other texts.

    python -m benchmarks.vocabulary --data CLINC150

No training: parameters, the time to count, cut and compare, and the share of words of the validation texts that are made of
other tokens than before. `--layers 3` of 6 are kept beside.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from benchmarks.inputs import add_data_option, clinc150, minilm
from benchmarks.tables import markdown
from stilla import data
from stilla.evaluate import count_parameters
from stilla.recipe import ModelSource, StudentSpec
from stilla.runtime.quiet import quiet_libraries
from stilla.stages.starting import start_student
from stilla.stages.vocabulary import Smaller
from stilla.students.vocabulary import changed_words
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification

SPECS: dict[str, Any] = {
    "all": None, "data": "data", "{extra: 4000}": {"extra": 4000}, "{extra: 8000}": {"extra": 8000},
    "{extra: 12000}": {"extra": 12000}, "{tokens: 5000}": {"tokens": 5000}, "{languages: [en]}": {"languages": ["en"]}}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_option(parser)
    parser.add_argument("--layers", type=int, default=3)
    options = parser.parse_args(arguments)
    quiet_libraries()
    section = TextClassificationData(train=str(clinc150(options.data)), text=("text",), label=("intent",))
    splits = data.load(section, seed=0)
    task = TextClassification.understand(section, splits)
    teacher = task.load(ModelSource(model=str(minilm())), labelled=False)
    task = task.adapted_to(teacher)
    rows = []
    for name, spec in SPECS.items():
        asked = StudentSpec(layers=options.layers, vocabulary=spec)
        began = time.perf_counter()
        whole, _ = start_student(asked, task, teacher)
        plain = time.perf_counter() - began
        if asked.vocabulary is None:
            rows.append((name, f"{len(teacher.processor):,}", f"{count_parameters(whole.model):,}", "", "", "", ""))
            continue
        smaller = Smaller.counted_in(asked.vocabulary, task, (splits["train"],))
        began = time.perf_counter()
        student, loaded = start_student(asked, task, teacher, None, smaller)
        seconds = time.perf_counter() - began - plain
        read = task.texts(splits["validation"], teacher.processor)
        changed = changed_words(teacher.processor, loaded.processor, read.lines, read.length)
        before, after = (count_parameters(one.model) for one in (whole, student))
        rows.append((name, f"{len(loaded.processor):,}", f"{after:,}", f"{before / after:.2f} ×", f"{seconds:.1f} s",
                     f"{changed.changed / changed.words:.1%}", f"{changed.touched / changed.texts:.0%}"))
        assert not changed.unknown
    counted = len(splits["train"]), len(splits["validation"])
    print(f"\n{counted[0]:,} training texts counted, {counted[1]:,} validation texts measured, {options.layers} layers\n")
    print(markdown(["`vocabulary`", "tokens", "parameters", "smaller", "to cut", "words changed", "texts touched"], rows))


if __name__ == "__main__":
    main(sys.argv[1:])
