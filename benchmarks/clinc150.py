"""The real case: all-MiniLM-L6-v2 learns the 150 intents of clinc150, and is distilled into 3, 2 and 1 layers.

    python -m benchmarks.clinc150 --data CLINC150

The objectives are the defaults: the recipe names none. All numbers are on the test split, 1,000 of whose 5,500
questions are of no known intent (a class of its own). The same command again continues.
"""

from __future__ import annotations

from benchmarks.inputs import add_data_option, clinc150, minilm
from benchmarks.students import distil, parser, show


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/clinc150", layers=[3, 2, 1], teacher_epochs=6.0, teacher_learning_rate=1e-4,
                  epochs=4.0, learning_rate=3e-4)
    add_data_option(made)
    options = made.parse_args()
    data = {"train": str(clinc150(options.data)), "text": "text", "label": "intent", "limit": options.limit}
    show("clinc150", distil(options, {"task": "text-classification", "data": data}, minilm()))


if __name__ == "__main__":
    main()
