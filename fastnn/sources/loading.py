"""Threads that fill the slots of a ring ahead of the engine, and what each of them does.

Slots are filled by any thread in any order, and handed out in theirs. So what is trained on does not depend on the
number of threads, nor on which of them was quick; and an error is raised when everything before it has been used.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

import numpy as np

from fastnn.sources.intake import Intake, Slot
from fastnn.sources.kinds import Batches, Rows, Stopped, Stream

#: Ctrl-C is looked for so often, in seconds, while the engine waits for data, ...
PULSE = 0.05
#: ... and threads that are in the middle of an item then are waited for so long. They end with that item.
PATIENCE = 0.03
#: Bytes of a slot that is read at once, if more than one batch fits in; and of a ring whose slots are small.
SLOT = 4 << 20
MOST_BATCHES = 256
MOST_SLOTS = 64
FEWEST_SLOTS = 4  # of an epoch, so that something is ready soon

Job = Callable[["Loader"], Iterator[None]]


class Ring:
    """Arrays allocated once, in which slots of ``rows`` rows are filled, used and filled again.

    Args:
        intake: what is written into them
        rows: of a slot
        count: of the slots
    """

    def __init__(self, intake: Intake, rows: int, count: int) -> None:
        self.intake, self.rows, self.count = intake, rows, count
        self.arrays = {n: np.empty((count * rows, *s), intake.dtype) for n, s in intake.shapes.items()}
        self.slots: list[Slot] = []
        for start in range(0, count * rows, rows):
            self.slots.append(intake.slot({n: a[start : start + rows] for n, a in self.arrays.items()}))

    def slot(self, number: int) -> Slot:
        """The arrays of the slot with that number, counted on and on."""
        return self.slots[number % self.count]


class Stretch(NamedTuple):
    """Filled slots that lie side by side: ``rows`` rows from row ``start`` of the ring on."""

    ring: Ring
    start: int
    rows: int


class Loader:
    """Fills the slots of a ring while they are used; a context manager, which starts and ends its threads.

    Args:
        ring: may be replaced by one with larger slots on the way
        job: what each thread does: a generator that fills slots and comes back after each
        workers: threads; with 0 the job is done when a slot is asked for
        slots: how many there will be, or None if that is not known; then the job says when it ends
        parts: a slot is filled in so many parts, which different threads may take
    """

    def __init__(self, ring: Ring, job: Job, workers: int, slots: int | None = None, parts: int = 1) -> None:
        self.ring, self.parts, self.stopped = ring, parts, False
        self._changed = threading.Condition()
        self._end = slots
        self._claimed = 0  # parts
        self._released = 0  # slots
        self._filled: dict[int, list[int]] = {}  # slot -> rows in its parts that are done
        self._errors: dict[int, tuple[int, BaseException]] = {}  # slot -> its first part that failed
        self._ready: dict[int, tuple[Ring, int]] = {}
        self._broken: BaseException | None = None  # what ended a thread against all expectation
        self._turn = 0
        self._beat: Callable[[], None] = _nothing
        self._inline = job(self) if workers == 0 else None
        self._threads = [
            threading.Thread(target=self._work, args=(job,), name=f"fastnn loader {number}", daemon=True)
            for number in range(workers)
        ]

    def __enter__(self) -> Self:
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._stop()
        self._errors.clear()
        hurry = kind is not None and issubclass(kind, KeyboardInterrupt)
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            while thread.is_alive() and not (hurry and time.monotonic() > deadline):
                thread.join(PATIENCE)
                if not hurry:
                    self._beat()

    def _stop(self) -> None:
        with self._changed:
            self.stopped = True
            self._changed.notify_all()

    def _work(self, job: Job) -> None:
        try:
            for _ in job(self):
                pass
        except BaseException as error:
            with self._changed:
                self._broken = error
                self._changed.notify_all()

    # ------------------------------------------------------------------ for jobs

    def unwanted(self) -> bool:
        """Whether nobody wants what is being loaded any more. To be asked for each item: Ctrl-C may be waiting."""
        if self._inline is not None:
            self._beat()
        return self.stopped

    def claim(self) -> int | None:
        """The number of the next part to fill, once there is room for it; None if there is nothing more to do."""
        with self._changed:
            while not self.stopped:
                slot = self._claimed // self.parts
                if self._end is not None and slot >= self._end:
                    return None
                if slot - self._released < self.ring.count:
                    self._claimed += 1
                    return self._claimed - 1
                self._changed.wait()
            return None

    def publish(self, part: int, rows: int) -> None:
        """A part is filled with so many rows."""
        self._done(part, rows, None)

    def fail(self, part: int, error: BaseException) -> None:
        """A part cannot be filled."""
        self._done(part, 0, error)

    def _done(self, part: int, rows: int, error: BaseException | None) -> None:
        slot, number = divmod(part, self.parts)
        with self._changed:
            if error is not None and (slot not in self._errors or number < self._errors[slot][0]):
                self._errors[slot] = number, error
            filled = self._filled.setdefault(slot, [])
            filled.append(rows)
            if len(filled) == self.parts:
                self._ready[slot] = self.ring, sum(self._filled.pop(slot))
                self._changed.notify_all()

    def await_turn(self, ticket: int) -> bool:
        """Wait until all tickets before this one have passed; False if nobody wants it any more."""
        with self._changed:
            while not self.stopped and self._turn != ticket:
                self._changed.wait()
            return not self.stopped

    def pass_turn(self) -> None:
        """The ticket whose turn it was has passed."""
        with self._changed:
            self._turn += 1
            self._changed.notify_all()

    def finish(self) -> None:
        """No slot comes after those that were claimed."""
        with self._changed:
            self._end = self._claimed // self.parts
            self._changed.notify_all()

    def grow(self, rows: int) -> None:
        """Fill slots with room for so many rows from now on."""
        self.ring = Ring(self.ring.intake, rows, self.ring.count)

    # ------------------------------------------------------------------ for the engine

    def stretches(self, beat: Callable[[], None]) -> Iterator[Stretch]:
        """The slots in order, as many together as are ready, but less than the half so that others can be filled.

        Each is free again when the next one is asked for. While it waits, ``beat`` is called.
        """
        slot, self._beat = 0, beat
        while self._wait(slot):
            with self._changed:
                if slot in self._errors:
                    raise self._errors.pop(slot)[1]
                ring, rows = self._ready.pop(slot)
                count, full, start = 1, rows == ring.rows, slot % ring.count
                while full and count < (ring.count - 1) // 2 and start + count < ring.count:
                    after = self._ready.get(slot + count)
                    if after is None or after[0] is not ring or slot + count in self._errors:
                        break
                    del self._ready[slot + count]
                    rows += after[1]
                    full = after[1] == ring.rows
                    count += 1
            yield Stretch(ring, start * ring.rows, rows)
            slot += count
            with self._changed:
                self._released = slot
                self._changed.notify_all()

    def _wait(self, slot: int) -> bool:
        """Until the slot is ready, or there is no such slot."""
        while True:
            with self._changed:
                if slot in self._ready:
                    return True
                if self._broken is not None:
                    raise self._broken
                if self._end is not None and slot >= self._end:
                    return False
                if self._inline is None:
                    self._changed.wait(PULSE)
            if self._inline is not None:
                next(self._inline, None)
            self._beat()


def _nothing() -> None:
    """Where nobody waits for Ctrl-C."""


def rows_job(source: Rows, what: str, order: np.ndarray, loader: Loader) -> Iterator[None]:
    """Fill slots with the rows that have these numbers."""
    ring = loader.ring
    while (part := loader.claim()) is not None:
        slot, number = divmod(part, loader.parts)
        rows = order[slot * ring.rows : (slot + 1) * ring.rows]
        share = -(-len(rows) // loader.parts)
        start = min(number * share, len(rows))
        numbers = rows[start : start + share]
        place, stop = ring.slot(slot), start + len(numbers)
        try:
            if len(numbers):
                source.read(what, numbers, place, start, ring.intake, loader.unwanted)
                name = _named_by(source, what, numbers, start)
                ring.intake.finish(place, start, stop, name)
        except Stopped:
            return
        except BaseException as error:
            loader.fail(part, error)
        else:
            loader.publish(part, len(numbers))
        yield


def _named_by(source: Rows, what: str, numbers: np.ndarray, start: int) -> Callable[[int], str]:
    return lambda row: source.label(what, int(numbers[row - start]))


class BatchesJob:
    """Fill slots with batches, which threads load at the same time and put in one after the other.

    Args:
        source: of the batches
        what: who asks, for errors
        order: the numbers of the batches in their order, or None
        limit: how many, or None for all there are
        together: whether a slot takes rows of several batches, and each is filled, or a slot is a batch
    """

    def __init__(
        self, source: Batches, what: str, order: np.ndarray | None, limit: int | None, *, together: bool
    ) -> None:
        self.what, self.order, self.limit, self.together = what, order, limit, together
        self.tickets = self.done = 0
        self._load = source.start(order, limit)
        self._drawing = threading.Lock()
        self._slot: int | None = None  # being filled
        self._fill = 0

    def __call__(self, loader: Loader) -> Iterator[None]:
        """What each thread does."""
        while (ticket := self._draw()) is not None:
            number = ticket if self.order is None else int(self.order[ticket])
            label = f"{self.what}: batch {number}"
            item, failed = None, None
            try:
                item = self._load(label, ticket)
                parts = None if item is Stream.END else loader.ring.intake.batch(label, item)
            except BaseException as error:
                parts, failed = None, error
            if not loader.await_turn(ticket):
                return
            if parts is not None:
                self.done = ticket + 1
                try:
                    yield from self._put(loader, label, parts)
                except GeneratorExit:
                    raise
                except BaseException as error:
                    failed = error
            if failed is not None:
                slot = loader.claim() if self._slot is None else self._slot
                if slot is not None:
                    loader.fail(slot, failed)
                return
            if parts is None or ticket + 1 == self.limit:
                if self._slot is not None:
                    loader.publish(self._slot, self._fill)
                loader.finish()
                return
            loader.pass_turn()
            yield

    def _draw(self) -> int | None:
        with self._drawing:
            if self.tickets == self.limit:
                return None
            self.tickets += 1
            return self.tickets - 1

    def _put(self, loader: Loader, label: str, parts: dict[str, np.ndarray]) -> Iterator[None]:
        count, at = len(parts["x"]), 0
        if count > loader.ring.rows and not self.together:
            loader.grow(count)
        ring = loader.ring
        while at < count:
            if self._slot is None:
                self._slot, self._fill = loader.claim(), 0
                if self._slot is None:
                    return
            place, start = ring.slot(self._slot), self._fill
            size = min(count - at, ring.rows - start)
            ring.intake.put_rows(place, start, parts, slice(at, at + size))
            ring.intake.finish(place, start, start + size, _row_of(label, at - start))
            at, self._fill = at + size, start + size
            if self._fill == ring.rows or not self.together:
                loader.publish(self._slot, self._fill)
                self._slot = None
                yield


def _row_of(label: str, offset: int) -> Callable[[int], str]:
    return lambda row: f"{label}, row {row + offset}"


def buffers_for(
    intake: Intake, rows: int, workers: int, *, bulk: bool = False, most: int | None = None
) -> tuple[int, int]:
    """How many batches of ``rows`` rows make a slot, and how many slots a ring.

    With ``bulk``, many batches at a time are read in less time than one by one; there are ``most`` batches, or nobody
    knows how many.
    """
    row = sum(int(np.prod(shape, dtype=np.int64)) for shape in intake.shapes.values())
    size = max(1, np.dtype(intake.dtype).itemsize * rows * row)
    batches = max(1, min(SLOT // size, MOST_BATCHES)) if bulk else 1
    if most is not None:
        batches = min(batches, -(-most // FEWEST_SLOTS))
    slots = max(workers + 2, min(SLOT // (size * batches), MOST_SLOTS)) if workers else 1
    if most is not None:
        slots = min(slots, -(-most // batches))
    return batches, slots
