"""Programs for the READMEs of exported files that find objects with masks: of `segments`, `labels` and a picture."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

INSTANCES: Final = """
# of each guess the first lines are the log-odds of its classes, the others its mask, on a grid over the whole picture
import numpy

with Image.open("picture.png") as picture:
    size = picture.size
width = segments.shape[-1]
lines = -(-len(labels) // width)
for guess in segments[0]:
    odds = guess[:lines].reshape(-1)[: len(labels)]
    if odds.max() > 0:  # most are nothing
        mask = numpy.asarray(Image.fromarray(guess[lines:]).resize(size, Image.Resampling.BILINEAR)) > 0
        print(labels[str(odds.argmax())], round(float(1 / (1 + numpy.exp(-odds.max()))), 3), int(mask.sum()), "pixels")
"""
_PANOPTIC: Final = """
# of each guess the first lines are the log-odds of its classes, the others its mask, on a grid over the whole picture
import numpy

stuff, threshold, overlap = {stuff}, {threshold:g}, {overlap:g}
with Image.open("picture.png") as picture:
    size = picture.size
width = segments.shape[-1]
lines = -(-len(labels) // width)
kept = []
for guess in segments[0]:
    chances = 1 / (1 + numpy.exp(-guess[:lines].reshape(-1)[: len(labels)]))
    if chances.max() > max(threshold, 1 - chances.sum()):  # most are nothing
        mask = numpy.asarray(Image.fromarray(guess[lines:]).resize(size, Image.Resampling.BILINEAR))
        kept.append((float(chances.max()), int(chances.argmax()), 1 / (1 + numpy.exp(-mask))))
kept.sort(key=lambda one: -one[0])
whose = numpy.argmax([score * mask for score, _, mask in kept], 0) if kept else None
panoptic, found = numpy.zeros(size[::-1], int), []  # of each pixel the number of its segment, 0 of none
for place, (score, kind, mask) in enumerate(kept):
    own = (whose == place) & (mask >= 0.5)
    if not own.any() or (whose == place).sum() < overlap * (mask >= 0.5).sum():
        continue  # others have taken its pixels
    same = [number for number, (known, _) in enumerate(found, 1) if known == kind and kind in stuff]
    if not same:
        found.append((kind, score))
    panoptic[own] = same[0] if same else len(found)
for number, (kind, score) in enumerate(found, 1):
    print(labels[str(kind)], round(score, 3), int((panoptic == number).sum()), "pixels")
"""


def panoptic(stuff: Collection[int], threshold: float, overlap: float) -> str:
    """The same as `panoptic_exam.parts`. stuff: its classes in the model's order."""
    return _PANOPTIC.format(stuff=sorted(stuff), threshold=threshold, overlap=overlap)
