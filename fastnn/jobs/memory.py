"""What fits in memory, known before it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["available_memory", "require_memory", "size_text"]

#: Limits of control groups (containers), version 2 and 1, and the line of /proc with what is free or can be freed.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
MEMINFO = "/proc/meminfo"


def require_memory(needed: float, what: str, hint: str) -> None:
    """Refuse what cannot fit.

    Args:
        needed: bytes.
        what: needs them, the beginning of the sentence.
        hint: what would help, its end.

    Raises:
        ValueError: there is less memory than that.

    Example:
        >>> require_memory(1e18, "1000 images", "a smaller size helps")
        Traceback (most recent call last):
        ValueError: 1000 images need 1,000,000,000 GB of memory, but there are only ... GB: a smaller size helps
    """
    available = available_memory()
    if available is not None and needed > available:
        raise ValueError(
            f"{what} need {size_text(needed)} of memory, but there are only {size_text(available)}: {hint}"
        )


def available_memory() -> int | None:
    """Bytes that this process may still hope for: free memory, or a container's limit; None if nobody says."""
    known = [int(text) for path in LIMITS if (text := _read(path)).isdecimal()]
    free = [line.split()[1] for line in _read(MEMINFO).splitlines() if line.startswith("MemAvailable:")]
    if free:
        known.append(int(free[0]) * 1024)
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(known, default=None)


def size_text(count: float) -> str:
    """So many bytes.

    Example:
        >>> size_text(123456), size_text(12.34e6), size_text(5e9)
        ('0.1 MB', '12.3 MB', '5.0 GB')
    """
    unit, value = ("MB", count / 1e6) if count < 1e9 else ("GB", count / 1e9)
    return f"{value:,.1f} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
