"""Which files are images, and of which class: the walk through folders.

The order is that of the names' characters, whatever the file system says.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastnn.jobs.words import counted, listed

__all__ = ["EXTENSIONS", "ImageFile", "class_files", "image_files", "shown"]

logger = logging.getLogger(__name__)

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")
#: Folders so named, and no others, are taken for the parts of somebody's split.
PARTS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


@dataclass(frozen=True)
class ImageFile:
    """A file to be read, and the class that it is said to belong to ("" where none is known)."""

    path: Path
    label: str = ""

    def __str__(self) -> str:
        return shown(self.path)


@dataclass
class _Walk:
    """What was found in folders: images in the order of their names, and what was passed over."""

    images: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)

    def enter(self, folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> None:
        """Look through a folder and those in it. Links are followed, but not to a folder that they are in."""
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            self.loops.append(shown(folder))
            return
        for path in _entries(folder):
            if path.name.startswith("."):
                self.hidden.append(shown(path))
            elif path.is_dir():
                self.enter(path, above | {here})
            elif path.suffix.lower() in EXTENSIONS:
                self.images.append(path)
            else:
                self.others.append(shown(path))

    def report(self) -> None:
        """Say what was passed over."""
        if self.others:
            logger.info("ignored %s that are no images: %s", counted(len(self.others), "file"), listed(self.others, 3))
        if self.hidden:
            logger.info("ignored %s: %s", counted(len(self.hidden), "hidden file"), listed(self.hidden, 3))
        if self.loops:
            logger.warning("ignored links that lead back to a folder they are in: %s", listed(self.loops, 3))


def class_files(folder: str | Path, classes: int = 2) -> list[ImageFile]:
    """The images of ``folder/<class>/``, of folders in them too, class after class.

    Class names are brought to one Unicode form (NFC), as file systems differ in it.

    Args:
        folder: holds a folder for each class.
        classes: so many at least.

    Raises:
        ValueError: there is no such folder, it has too few classes, one of them has no images, two have the same name,
            or its folders are "train" and "test".
    """
    folder = Path(folder)
    _require_folder(folder)
    walk, found = _Walk(), list[ImageFile]()
    stray, folders = list[str](), dict[str, Path]()
    for path in _entries(folder):
        if path.name.startswith("."):
            walk.hidden.append(shown(path))
        elif not path.is_dir():
            (stray if path.suffix.lower() in EXTENSIONS else walk.others).append(shown(path))
        else:
            label = _label(path)
            if label in folders:
                raise ValueError(f"the folders {shown(folders[label])} and {shown(path)} are the same class")
            folders[label] = path
    if not folders:
        raise ValueError(f"{shown(folder)} has no folders of classes; images belong in {shown(folder)}/<class>/")
    if len(folders) < classes:
        raise ValueError(f"{shown(folder)} has one class only, {next(iter(folders))!r}: there is nothing to learn")
    if len(folders) > 1 and {label.casefold() for label in folders} <= PARTS:
        raise ValueError(
            f"the folders {listed(folders)} are parts of a split, not classes; give one of them, such as"
            f" {shown(next(iter(folders.values())))}"
        )
    for label in sorted(folders):
        before = len(walk.images)
        walk.enter(folders[label])
        if len(walk.images) == before:
            raise ValueError(f"the class folder {shown(folders[label])} holds no images ({', '.join(EXTENSIONS)})")
        found += [ImageFile(path, label) for path in walk.images[before:]]
    walk.report()
    if stray:
        logger.warning("ignored %s in no class folder: %s", counted(len(stray), "image"), listed(stray, 3))
    return found


def image_files(paths: Sequence[str | Path]) -> list[ImageFile]:
    """The images among files and folders: files as they are given, folders with all that is in them.

    Raises:
        ValueError: one of them does not exist, or is a folder without images.
    """
    walk, found = _Walk(), list[ImageFile]()
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.exists():
                raise ValueError(f"there is no file or folder {shown(path)}")
            found.append(ImageFile(path))
            continue
        before = len(walk.images)
        walk.enter(path)
        if len(walk.images) == before:
            raise ValueError(f"the folder {shown(path)} holds no images ({', '.join(EXTENSIONS)})")
        found += map(ImageFile, walk.images[before:])
    walk.report()
    return found


def shown(path: str | Path) -> str:
    """A path as text that can be printed, though it may hold bytes that are no text."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _entries(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except OSError as error:
        raise ValueError(f"the folder {shown(folder)} cannot be read: {error.strerror or error}") from None


def _label(path: Path) -> str:
    try:
        path.name.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"the name of the class folder {shown(path)} is not valid UTF-8") from None
    return unicodedata.normalize("NFC", path.name)


def _require_folder(folder: Path) -> None:
    if not folder.exists():
        raise ValueError(f"there is no folder {shown(folder)}")
    if not folder.is_dir():
        raise ValueError(f"{shown(folder)} is a file, not a folder of images")
