"""Output files that appear whole or not at all: written in a temporary place first, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["staged_files", "write_text"]


@contextmanager
def staged_files(directory: str | Path, names: Sequence[str]) -> Iterator[Path]:
    """A temporary directory to write the files ``names`` into; they move to ``directory`` if the block ends well.

    The temporary directory is made at once, so a place that cannot be written is found before the work. After an error
    inside the block nothing is left, and older files are as they were.

    Args:
        directory: where the files go; it is made if need be.
        names: the files, all of which the block has to write.

    Raises:
        ValueError: ``directory`` is a file, one of ``names`` is a directory in it, or the place cannot be written.

    Example:
        >>> with tempfile.TemporaryDirectory() as home:
        ...     with staged_files(home, ["a.txt"]) as place:
        ...         _ = (place / "a.txt").write_text("whole")
        ...     os.listdir(home)
        ['a.txt']
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"the output directory {directory} is a file")
    for name in names:
        if (directory / name).is_dir():
            raise ValueError(f"the output file {directory / name} is a directory")
    home = directory
    while not home.exists():
        home = home.parent
    try:
        place = Path(tempfile.mkdtemp(prefix=".fastnn-", dir=home))
    except OSError as error:
        raise ValueError(f"the output directory {directory} cannot be written: {error.strerror}") from None
    try:
        yield place
        directory.mkdir(parents=True, exist_ok=True)
        for name in names:
            os.replace(place / name, directory / name)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file as a whole; a pipe or a device is written directly.

    Raises:
        ValueError: ``path`` is a directory, is in none, or cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"the output file {path} is a directory")
    if not path.parent.is_dir():
        raise ValueError(f"the output file {path} cannot be written: there is no directory {path.parent}")
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        path = Path(os.path.realpath(path))
        with staged_files(path.parent, [path.name]) as place, open(place / path.name, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ValueError(f"the output file {path} cannot be written: {error.strerror}") from None
