"""Ctrl-C that never cuts a training step in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def gentle_interrupt() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until the function it yields is called, or the block ends; a second one comes through at once.

    Where somebody else handles the signal, or in other threads, nothing is done.
    """
    pressed = False

    def remember(number: int, frame: Any) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    def raise_if_pressed() -> None:
        if pressed:
            raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, remember)
    try:
        yield raise_if_pressed
        raise_if_pressed()
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
