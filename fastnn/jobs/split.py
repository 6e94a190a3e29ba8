"""The split of rows (of a table, or images) into training, validation and test parts, with scikit-learn."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from fastnn.jobs.words import counted, listed

__all__ = ["Split", "split_rows"]


class Split(NamedTuple):
    """Row positions (not labels) of each part, int64, sorted; ``validation`` is empty if none was asked for."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_rows(
    labels: np.ndarray | None,
    count: int,
    *,
    test_size: float = 0.2,
    validation_size: float = 0.2,
    groups: np.ndarray | None = None,
    seed: int = 0,
    what: str = "row",
) -> Split:
    """Split N rows at random, with a seed.

    Args:
        labels: (N,) class names: each part gets its share of each class. None for a number as target.
        count: N.
        test_size: share of the rows that is held out, above 0 and below 1.
        validation_size: share of the other rows that is used to watch the training, 0 for none.
        groups: (N,) group of each row: the rows of a group stay together.
        seed: 0 to 2**32 - 1; the same seed gives the same split.
        what: a row is, in messages.

    Raises:
        ValueError: too few rows or groups for the split, or a class of which none is left to train on.

    Example:
        >>> split = split_rows(np.array(["no", "yes"] * 10), 20)
        >>> len(split.train), len(split.validation), len(split.test)
        (12, 4, 4)
    """
    for name, size, least in (("test", test_size, 1e-9), ("validation", validation_size, 0.0)):
        if not least <= size < 1:
            raise ValueError(f"the {name} size must be a share below 1{' and above 0' * (least > 0)}. Received: {size}")
    everything = np.arange(count)
    rest, test = _split_once(everything, labels, groups, test_size, seed, "test", what)
    train, validation = rest, everything[:0]
    if validation_size:
        train, validation = _split_once(rest, labels, groups, validation_size, seed, "validation", what)
    lost = [] if labels is None else np.setdiff1d(labels, labels[train]).tolist()
    if lost:
        raise ValueError(f"no {what} of class {listed(lost)} is among the {counted(len(train), what)} to train on")
    return Split(train, validation, test)


#: With more groups than this chance alone keeps the classes' shares, and placing each group with care takes minutes.
MANY_GROUPS = 5000


def _split_once(
    places: np.ndarray,
    labels: np.ndarray | None,
    groups: np.ndarray | None,
    size: float,
    seed: int,
    part: str,
    what: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Split row positions into those that stay and the ``part`` that leaves."""
    from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold, train_test_split

    here = None if labels is None else labels[places]
    try:
        if groups is None:
            _require_members(here, what)
            stay, leave = train_test_split(places, test_size=size, stratify=here, random_state=seed)
        else:
            ours = groups[places]
            units = len(set(ours))
            if units < 2:
                raise ValueError("there is only one group")
            if here is None or units > MANY_GROUPS:
                splitter = GroupShuffleSplit(n_splits=1, test_size=size, random_state=seed)
                kept, left = next(splitter.split(places, groups=ours))
            else:
                folds, taken = _folds(size, units)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds
                    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(places, here, ours)
                    left = np.concatenate([fold for _, fold in parts][:taken])
                kept = np.setdiff1d(np.arange(len(places)), left)
            stay, leave = places[kept], places[left]
    except ValueError as error:
        raise ValueError(f"cannot split a {part} part off {counted(len(places), what)}: {error}") from None
    if not len(stay) or not len(leave):
        of = counted(len(places), what)
        raise ValueError(f"cannot split a {part} part off {of}: one of the parts would be empty")
    return np.sort(stay), np.sort(leave)


def _folds(size: float, units: int) -> tuple[int, int]:
    """The number of folds (20 or fewer, at most one for each group) and how many of them come closest to ``size``."""
    choices = [(folds, max(1, round(size * folds))) for folds in range(2, min(20, units) + 1)]
    fitting = [(folds, taken) for folds, taken in choices if taken < folds]
    return min(fitting, key=lambda choice: abs(choice[1] / choice[0] - size))


def _require_members(labels: np.ndarray | None, what: str) -> None:
    if labels is None:
        return
    names, counts = np.unique(labels, return_counts=True)
    few = [str(name) for name in names[counts < 2]]
    if few:
        raise ValueError(f"a class has 1 {what} only, too few to be in both parts: {listed(few)}")
