"""Words for messages: names in quotes, counts, and what a misspelt name may have meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = ["counted", "listed", "near_misses", "rows"]


def near_misses(name: str, names: Iterable[str]) -> str:
    """What else ``name`` may have meant, as the end of a sentence.

    Example:
        >>> near_misses("radius_mean", ["mean radius", "age"])
        " (did you mean 'mean radius'?)"
        >>> near_misses("xyz", ["age", "sex"])
        " (there are 'age', 'sex')"
    """
    names = list(names)
    found: dict[str, None] = {}
    for key in (str.casefold, _sorted_words):
        known = {key(other): other for other in names}
        found.update(dict.fromkeys(known[m] for m in difflib.get_close_matches(key(name), known, n=3, cutoff=0.7)))
    if found:
        return f" (did you mean {' or '.join(repr(other) for other in list(found)[:3])}?)"
    return f" (there are {listed(names)})" if names else ""


def _sorted_words(name: str) -> str:
    return " ".join(sorted(re.findall(r"[^\W_]+", name.casefold())))


def listed(names: Iterable[str], most: int = 8) -> str:
    """Quoted names, the first few of them."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def counted(count: int, what: str) -> str:
    """A number and what it counts.

    Example:
        >>> counted(1, "image"), counted(2, "image")
        ('1 image', '2 images')
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def rows(count: int) -> str:
    """ "1 row", "2 rows"."""
    return counted(count, "row")
