"""A teacher's knowledge on disk: written once, looked up by content, checked whenever it is read."""

from stilla.cache.coding import (
    DTYPES,
    Coder,
    DenseCoder,
    HiddenCoder,
    Ranked,
    SamplesCoder,
    StatesCoder,
    TopKCoder,
    name_of,
)
from stilla.cache.places import Place
from stilla.cache.shards import Entry, key_of
from stilla.cache.store import Manifest, Store, Writer, exists

__all__ = [
    "DTYPES", "Coder", "DenseCoder", "Entry", "HiddenCoder", "Manifest", "Place", "Ranked", "SamplesCoder", "StatesCoder",
    "Store", "TopKCoder", "Writer", "exists", "key_of", "name_of",
]
