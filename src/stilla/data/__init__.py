"""What a recipe names -> splits of examples, and their content as a fingerprint."""

from stilla.data import fingerprint, sources
from stilla.data.splits import LABEL_NAMES, from_all_over, label_column, load, load_one, rows_as_read

__all__ = ["LABEL_NAMES", "fingerprint", "from_all_over", "label_column", "load", "load_one", "rows_as_read", "sources"]
