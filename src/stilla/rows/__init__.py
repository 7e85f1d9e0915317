"""Row losses: every row objective of a step in one pass over chunks of rows, from hidden states and heads.

The only place where logits over a whole vocabulary exist, and only those of a chunk of rows at a time. A caller of its own
needs `fused_divergence` alone.
"""

from stilla.rows.blocks import compiler_problem
from stilla.rows.losses import fused_divergence, row_loss
from stilla.rows.measures import RowMeasures, row_measures

__all__ = ["RowMeasures", "compiler_problem", "fused_divergence", "row_loss", "row_measures"]
