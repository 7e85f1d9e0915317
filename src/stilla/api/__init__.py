"""A teacher behind somebody else's address: questions in texts, answers that are kept, and what they cost.

Nothing here knows a task or a model. `asking.py` is the way of a question; the other files are what it passes.
"""

from stilla.api.asking import Asked, ask
from stilla.api.client import key_of
from stilla.api.costs import Forecast, forecast
from stilla.api.questions import Question
from stilla.api.store import Reply, Store

__all__ = ["Asked", "Forecast", "Question", "Reply", "Store", "ask", "forecast", "key_of"]
