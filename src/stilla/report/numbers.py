"""How numbers are written, everywhere: in the terminal, on the page and on the model card."""

from __future__ import annotations

import math
from collections.abc import Callable

from stilla.scores import Interval, is_fraction

MISSING = "–"
"""Stands where nothing was measured."""


def quality(metric: str, value: float) -> str:
    """'88.7 %' for fractions, '0.887' for correlations, '1,234.5' for large errors."""
    return percent(value) if is_fraction(metric) else plain(value)


def interval(metric: str, measured: Interval) -> str:
    """'[87.9, 89.5]', in the same unit as `quality`; nothing where no interval could be computed."""
    if measured.low == measured.high:
        return ""
    if is_fraction(metric):
        return f"[{100 * measured.low:.1f}, {100 * measured.high:.1f}]".replace("-", "−")
    return f"[{plain(measured.low)}, {plain(measured.high)}]"


def difference(metric: str, value: float) -> str:
    """'+0.8 points' for fractions, '−0.012' for the rest."""
    return f"{_change(metric, value)} points" if is_fraction(metric) else _change(metric, value)


def difference_interval(metric: str, measured: Interval) -> str:
    """'[+0.2, +1.4]', in the same unit as `difference`."""
    if measured.low == measured.high:
        return ""
    return f"[{_change(metric, measured.low)}, {_change(metric, measured.high)}]"


def part(value: float) -> str:
    """'0.57': a part of something, as a ratio."""
    return _minus(f"{value:.2f}")


def interval_of(measured: Interval, text: Callable[[float], str]) -> str:
    """'[0.38, 0.81]', each end written as `text` writes the value, without its unit; nothing where none could be computed."""
    if measured.low == measured.high:
        return ""
    return f"[{', '.join(text(end).removesuffix(' %') for end in (measured.low, measured.high))}]"


def chance(p: float) -> str:
    """'0.25', '0.004': of a p, two digits say enough."""
    return f"{p:.2g}" if p >= 1e-4 else f"{p:.0e}"


def percent(value: float, decimals: int = 1) -> str:
    return _minus(f"{100 * value:.{decimals}f} %")


def plain(value: float) -> str:
    """Three decimals below a hundred, one above: metrics without a unit of their own."""
    return _minus(f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}")


def signed(value: float, decimals: int) -> str:
    """'+0.8', '−0.8', and '0.0' without a sign for what rounds to zero."""
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        return text.lstrip("-")
    return _minus(text) if value < 0 else f"+{text}"


def significant(value: float, digits: int = 3) -> str:
    """1,234 · 90.9 · 4.31 · 0.0431: as many digits as say something."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    # Rounded first: 9.996 is 10.0, not 10.00.
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return _minus(f"{value:,.{decimals}f}")


def count(number: float) -> str:
    """'22.7 M', '85.1 k', '7.24 B': parameters, operations, examples."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        # 999,600 would round to '1,000 k': it is a million by then.
        if abs(number) >= 0.9995 * size:
            return f"{significant(number / size)} {unit}"
    return f"{number:.0f}"


def megabytes(size: float) -> str:
    """'90.9 MB'; a megabyte is 10^6 bytes."""
    return f"{significant(size / 1e6)} MB"


def joules(energy: float) -> str:
    """'5.4 J', '12.3 kJ', '1.2 MJ'."""
    for size, unit in ((1e6, "MJ"), (1e3, "kJ")):
        if energy >= 0.9995 * size:
            return f"{significant(energy / size)} {unit}"
    return f"{significant(energy)} J"


def milliseconds(time: float) -> str:
    return f"{significant(time)} ms"


def duration(seconds: float) -> str:
    """'0.4 s', '12 s', '12 min', '3.4 h'."""
    if seconds < 9.5:
        return "0 s" if seconds <= 0 else "less than 0.1 s" if seconds < 0.05 else f"{seconds:.1f} s".replace(".0 ", " ")
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def durations(low: float, high: float) -> str:
    """'12 s to 2 min'; 'about 12 s' where both are written alike, 'at most 2 s' where the one is next to nothing."""
    if high < 0.05:
        return duration(high)
    if low < 0.05:
        return f"at most {duration(high)}"
    return f"about {duration(high)}" if duration(low) == duration(high) else f"{duration(low)} to {duration(high)}"


def per_second(rate: float) -> str:
    return f"{significant(rate)} /s"


def compared(value: float, reference: float, less: str, more: str, same: str) -> str:
    """'4.1× smaller': how `value` stands to the reference; `same` is said within 5 %."""
    if value <= 0 or reference <= 0:
        return ""
    times = max(value, reference) / min(value, reference)
    if times < 1.05:
        return same
    return f"{times_text(times)} {less if value < reference else more}"


def times_text(times: float) -> str:
    """'4.1×' below ten, '12×' above."""
    return f"{times:.1f}×" if times < 9.95 else f"{times:,.0f}×"


def _change(metric: str, value: float) -> str:
    """Signed, with as many decimals as `quality` gives the metric itself."""
    return signed(100 * value, 1) if is_fraction(metric) else signed(value, 3 if abs(value) < 100 else 1)


def _minus(text: str) -> str:
    return text.replace("-", "−")
