"""A teacher behind somebody else's address: questions in texts, answers that are kept, and what they cost.

Nothing here knows a task or a model. `asking.py` is the way of a question; the other files are what it passes. It and
`client.py` need the extra `api`, and are imported where something is asked.
"""

from stilla.api.costs import Forecast, forecast
from stilla.api.keys import key_of
from stilla.api.questions import Question
from stilla.api.store import REJECTED, Reply, Store

__all__ = ["REJECTED", "Forecast", "Question", "Reply", "Store", "forecast", "key_of"]
