"""The progress of `fit` on a terminal, in a file or in a pipe.

Training here can take less time than printing it: an epoch of a small network lasts a tenth of a millisecond. So an
epoch that ends is only noted, and the lines are written together at most twenty times a second.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal, TextIO

__all__ = ["ProgressBar", "say"]

Verbose = Literal["auto", 0, 1, 2]

LINES_EVERY = 0.05  # seconds between two writes of finished lines
REDRAW_EVERY = 0.1  # seconds between two drawings of the live bar
BAR = 8
LAYOUTS = 6

logger = logging.getLogger(__name__)

_open_bars: list[ProgressBar] = []


def say(message: str) -> None:
    """Write a line to the user, in its place between the lines of a running `ProgressBar`, if there is one."""
    if _open_bars:
        _open_bars[-1].write(message)
    elif sys.stdout is not None:
        with suppress(OSError, ValueError):  # a closed pipe does not end the training
            _put(sys.stdout, message + "\n")


class ProgressBar:
    """Shows the epochs of a training run: one line each, and on a terminal the running one as a live bar.

    On a terminal a line looks like this, and is shortened until it fits the window:

        Epoch  37/100 ━━━━━━━━ 12/12  0.4 ms  loss 0.0873  accuracy 0.9753  val_loss 0.1021  val_accuracy 0.9649

    In a file or a pipe there are plain lines without the bar. Nothing but text, spaces, carriage returns (terminal
    only) and line ends is ever written. Call `close` at the end, also after an error: it writes what is held back.

    Args:
        epochs: the number of the last epoch, for ``37/100``.
        steps: training steps in an epoch; None if that is not known, or if they are not to be shown.
        verbose: 0 writes nothing; 1 and "auto" are the bar on a terminal and lines elsewhere; 2 is lines everywhere.
        stream: where to write; the standard output if None.
        title: stands in place of ``Epoch 1/1`` if given.

    Raises:
        ValueError: `verbose` is something else.

    Example:
        >>> import sys
        >>> bar = ProgressBar(epochs=10, steps=12, verbose=2, stream=sys.stdout)
        >>> bar.epoch_begin(0)
        >>> bar.update(12, {"loss": 0.7})
        >>> bar.epoch_end(0, {"loss": 0.6931, "accuracy": 0.5}, seconds=0.0004)
        >>> bar.close()
        Epoch  1/10  0.4 ms  loss 0.6931  accuracy 0.5000
    """

    def __init__(
        self,
        epochs: int,
        steps: int | None,
        verbose: Verbose = "auto",
        stream: TextIO | None = None,
        *,
        title: str | None = None,
    ) -> None:
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(f"verbose must be 'auto', 0, 1 or 2. Received: verbose={verbose!r}")
        self.epochs = epochs
        self.steps = steps or 0
        self._stream = stream if stream is not None else sys.stdout
        self._silent = verbose == 0 or self._stream is None
        self._terminal = self._stream is not None and _is_terminal(self._stream)
        self._live = self._terminal and verbose != 2 and not self._silent
        pretty = self._live and _can_write(self._stream, "━╸")
        self._full, self._half, self._rest = ("━", "╸", " ") if pretty else ("#", "-", " ")
        self._title = title
        self._columns = 0  # of the window; 0 is no limit
        self._widest = 0 if self._live and self.steps else 2
        self._layout = self._widest  # the first that fitted
        self._widths: dict[str, int] = {}  # the widest value seen, by name
        self._finished: list[tuple[int, dict[str, float], float] | str] = []
        self._drawn = 0  # characters of the live line on the screen
        self._epoch = 0
        self._epoch_start = self._last_draw = self._last_write = time.perf_counter()
        if not self._silent:
            _open_bars.append(self)

    def epoch_begin(self, epoch: int) -> None:
        """Start the clock of `epoch` (from 0)."""
        self._epoch = epoch
        self._epoch_start = time.perf_counter()

    def update(self, step: int, logs: Mapping[str, float]) -> None:
        """Redraw the live bar after `step` steps of the epoch, unless that was done just now. Cheap to call often."""
        if self._silent:
            return
        now = time.perf_counter()
        if now - self._last_draw < REDRAW_EVERY:
            return
        self._last_draw = now
        self.flush()
        if self._live and not self._silent:
            self._measure()
            line = self._fitted(self._epoch, step, now - self._epoch_start, logs)
            self._emit("\r" + line.ljust(self._drawn))
            self._drawn = len(line)

    def epoch_end(self, epoch: int, logs: Mapping[str, float], seconds: float) -> None:
        """Note the finished line of `epoch` (from 0), which took `seconds`. It is written soon, or at `close`."""
        if self._silent:
            return
        self._finished.append((epoch, dict(logs), seconds))
        if time.perf_counter() - self._last_write >= LINES_EVERY:
            self.flush()

    def write(self, message: str) -> None:
        """Write a line of text after the lines of the epochs that ended before it."""
        if not self._silent:
            self._finished.append(message)

    def flush(self) -> None:
        """Write the finished lines now, so that what is printed next comes after them."""
        if self._silent or not self._finished:
            return
        self._last_write = time.perf_counter()
        if self._terminal:
            self._measure()
        finished, self._finished = self._finished, []
        lines = [item if isinstance(item, str) else self._fitted(item[0], None, item[2], item[1]) for item in finished]
        if self._drawn:
            lines[0] = "\r" + lines[0].ljust(self._drawn)
            self._drawn = 0
        self._emit("\n".join(lines) + "\n")

    def close(self) -> None:
        """Write what is held back and leave the cursor on a new line. May be called twice."""
        self.flush()
        if self._drawn:
            self._emit("\n")
            self._drawn = 0
        if self in _open_bars:
            _open_bars.remove(self)
        self._silent = True

    # ------------------------------------------------------------ lines

    def _fitted(self, epoch: int, step: int | None, seconds: float, logs: Mapping[str, float]) -> str:
        """The line of an epoch, or of a running one if `step` is given, shortened until it fits the window."""
        line = self._line(epoch, step, seconds, logs)
        while self._columns and len(line) >= self._columns:
            if self._layout == LAYOUTS - 1:
                return line[: self._columns - 1]
            self._layout += 1
            line = self._line(epoch, step, seconds, logs)
        if step and step < self.steps:
            left = f"  {_duration(seconds / step * (self.steps - step))} left"
            if not self._columns or len(line + left) < self._columns:
                line += left
        return line

    def _line(self, epoch: int, step: int | None, seconds: float, logs: Mapping[str, float]) -> str:
        """Layouts: 0 all; 1 no bar; 2 no steps; 3 validation beside training; 4 no time; 5 no word."""
        layout, epochs = self._layout, str(self.epochs)
        if self._title is not None:
            line = self._title
        else:
            line = f"{'Epoch ' if layout < 5 else ''}{epoch + 1:>{len(epochs)}}/{epochs}"
        if layout == 0:
            line += f" {self._bar(step)}"
        if layout < 2:
            done = self.steps if step is None else step
            line += f" {done:>{len(str(self.steps))}}/{self.steps}"
        if layout < 4:
            line += f" {_duration(seconds):>7}"
        cells = {name: self._cell(name, value) for name, value in logs.items()}
        if layout < 3:
            line += "".join([f"  {name} {cell}" for name, cell in cells.items()])
        else:
            for name, cell in cells.items():
                if not (name.startswith("val_") and name[4:] in cells):
                    line += f"  {name} {cell}"
                    if "val_" + name in cells:
                        line += f" val {cells['val_' + name]}"
        return line

    def _cell(self, name: str, value: float) -> str:
        """A number, as wide as in the lines before."""
        text = _number(value)
        width = self._widths.get(name, 6)
        if len(text) > width:
            self._widths[name] = width = len(text)
        return text.rjust(width)

    def _bar(self, step: int | None) -> str:
        if step is None or step >= self.steps:
            return self._full * BAR
        halves = 2 * BAR * step // self.steps
        return (self._full * (halves // 2) + self._half * (halves % 2)).ljust(BAR, self._rest)

    # ------------------------------------------------------------ the stream

    def _measure(self) -> None:
        """Read the width of the window; a new one is tried with the longest layout first."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (AttributeError, OSError, ValueError):
            columns = 80
        if columns != self._columns:
            self._columns, self._layout = columns, self._widest

    def _emit(self, text: str) -> None:
        """Write, and never let a closed pipe or a full disk under the log end the training."""
        try:
            _put(self._stream, text)
            self._stream.flush()
        except (OSError, ValueError) as error:
            logger.warning("the progress is not shown any more: %s", error)
            self._silent = True
            self._finished.clear()


def _number(value: float) -> str:
    """Six characters for most numbers, at least two digits that count.

    >>> [_number(value) for value in (0.08731, 0.0, 1.0, 31.4159, 2834.06, 123456.7, 0.00073, 1.2e-12, 4e8, -0.5)]
    ['0.0873', '0.0000', '1.0000', '31.416', '2834.1', '123457', '7.3e-4', '1.2e-12', '4.0e+8', '-0.5000']
    """
    size = abs(value)
    if 0.001 <= size < 9.99995 or size == 0.0:
        return f"{value:.4f}"
    if size < 0.001 or size >= 999999.5:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e+")
    if not math.isfinite(size):
        return str(value)
    return f"{value:.{3 if size < 99.9995 else 2 if size < 999.995 else 1 if size < 9999.95 else 0}f}"


def _duration(seconds: float) -> str:
    """At most seven characters.

    >>> [_duration(s) for s in (0.00004, 0.0004, 0.0123, 1.234, 59.9, 65, 7500, 1e6)]
    ['0.04 ms', '0.4 ms', '12 ms', '1.2 s', '59.9 s', '1m05s', '2h05m', '277h46m']
    """
    if seconds < 0.0000995:
        return f"{seconds * 1e3:.2f} ms"
    if seconds < 0.00995:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False


def _put(stream: TextIO, text: str) -> None:
    stream.write(text if _can_write(stream, text) else text.encode("ascii", "replace").decode())


def _can_write(stream: TextIO, text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (LookupError, UnicodeError):
        return False
    return True
