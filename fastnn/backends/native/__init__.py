"""The native backend: Programs run in the C core, whole epochs at a time."""

from __future__ import annotations

import os
from typing import Any

NAME = "native"

try:
    import fastnn.backends.native._native as _native
except ImportError as error:
    _native = None
    _reason: str | None = f"the compiled extension is not there ({error})"
else:
    _reason = None
    if os.environ.get("FASTNN_ISA"):
        _native.choose_isa(os.environ["FASTNN_ISA"])


def why_not() -> str | None:
    """Why this backend cannot run, or None."""
    return _reason


def describe() -> dict[str, Any]:
    """What a person wants to know of it."""
    return {"isa": _native.isa(), "isas": _native.isas(), "threads": _native.threads()}


if _native is not None:
    Program = _native.Program
    isa, isas, choose_isa = _native.isa, _native.isas, _native.choose_isa
    set_threads, threads, peak_gflops = _native.set_threads, _native.threads, _native.peak_gflops
