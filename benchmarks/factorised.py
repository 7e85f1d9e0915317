"""A table of tokens as a product of two narrow ones, beside one with fewer tokens: which keeps more, at the same size?

    python -m benchmarks.factorised runs/benchmarks/gap/clinc150 --data CLINC150

Of a fine-tuned teacher (a case of `benchmarks.gap`), nothing else changed and nothing trained: its table is put together
again from its largest singular directions, with every token's row weighed by how often the training texts use it, or loses
the tokens that they use least. Accuracy on the validation texts.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.inputs import add_data_option, clinc150
from benchmarks.tables import markdown
from stilla import data, tasks
from stilla.evaluate import Asked, examine
from stilla.recipe import ModelSource, StudentSpec
from stilla.runtime.quiet import quiet_libraries
from stilla.stages.starting import start_student
from stilla.stages.vocabulary import Smaller
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification

TOKENS = (9_000, 6_827, 4_000, 3_000)


def main() -> None:
    options = parse()
    quiet_libraries()
    torch.set_num_threads(options.threads)
    section = TextClassificationData(train=str(clinc150(options.data)), text=("text",), label=("intent",))
    splits = data.load(section, seed=0)
    task = tasks.find("text-classification").understand(section, splits)
    assert isinstance(task, TextClassification)
    teacher: Any = task.load(ModelSource(model=str(options.case / "teacher" / "teacher")), labelled=True)
    task = task.adapted_to(teacher)
    table = teacher.model.get_input_embeddings().weight
    used = counted(teacher.processor, task.texts(splits["train"], teacher.processor).lines, len(table))
    rows = [("all", f"{len(table):,} × {table.shape[1]}", f"{table.numel():,}", accuracy(task, teacher, splits), "")]
    whole = table.detach().clone()
    for tokens in TOKENS:
        asked = StudentSpec.model_validate({"vocabulary": {"tokens": tokens}})
        assert asked.vocabulary is not None
        smaller = Smaller.counted_in(asked.vocabulary, task, (splits["train"],))
        cut: Any
        _, cut = start_student(asked, task, teacher, None, smaller)
        size = cut.model.get_input_embeddings().weight.numel()
        rank = size // sum(whole.shape)
        table.data.copy_(of_rank(whole, used, rank))
        rows.append((f"{tokens:,} tokens, or rank {rank}", f"{tokens:,} × {table.shape[1]}", f"{size:,}",
                     accuracy(task, cut, splits), accuracy(task, teacher, splits)))
        table.data.copy_(whole)
    print(markdown(["", "rows", "numbers", "fewer tokens", "factorised"], rows))


def counted(tokenizer: Any, lines: Any, tokens: int) -> Tensor:
    """How often each token stands in the texts."""
    counts = Counter(token for line in lines for token in tokenizer(line)["input_ids"])
    return torch.tensor([counts[token] for token in range(tokens)], dtype=torch.float32)


def of_rank(table: Tensor, used: Tensor, rank: int) -> Tensor:
    """The nearest table of the rank, by squared errors weighed with each row's use; a row that nobody uses counts a tenth."""
    weights = used.clamp_min(0.1).sqrt().unsqueeze(1)
    left, values, right = torch.linalg.svd(weights * table, full_matrices=False)
    nearest: Tensor = (left[:, :rank] * values[:rank]) @ right[:rank] / weights
    return nearest


def accuracy(task: TextClassification, loaded: Any, splits: Any) -> str:
    prepared = task.prepare(splits["validation"], loaded.processor, None, training=False)
    exam = task.exam()
    answers = examine(exam, {"student": Asked(loaded.model)}, prepared, batch_size=64)["student"]
    metric = exam.metrics()[0]
    return f"{100 * metric.of(metric.statistics(answers.given, answers.references)):.1f}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.factorised", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path, help="the folder of the case")
    parser.add_argument("--threads", type=int, default=1)
    add_data_option(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
