"""What a recipe names -> splits of examples, and their content as a fingerprint."""

from stilla.data import fingerprint, sources
from stilla.data.drawing import LABEL_NAMES, label_column
from stilla.data.sample import from_all_over
from stilla.data.several import PART, in_one_table, part_of
from stilla.data.splits import (
    SHIFTED,
    TEACHER,
    load,
    load_one,
    number_left,
    of_part,
    rows_as_read,
    to_learn_from,
    to_measure,
)
from stilla.data.unlabelled import are_unlabelled, joined, load_all_unlabelled, load_unlabelled, with_nulls

__all__ = [
    "LABEL_NAMES", "PART", "SHIFTED", "TEACHER", "are_unlabelled", "fingerprint", "from_all_over", "in_one_table",
    "joined", "label_column", "load", "load_all_unlabelled", "load_one", "load_unlabelled", "number_left", "of_part",
    "part_of", "rows_as_read", "sources", "to_learn_from", "to_measure", "with_nulls",
]
