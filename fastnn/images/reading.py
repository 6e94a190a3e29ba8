"""Image files to arrays of numbers from 0 to 1, with Pillow. Shapes: height H, width W, channels C (1 grey, 3 colour).

An image counts as grey if its red, green and blue are equal everywhere, however it is stored. It is turned as its EXIF
orientation says; what is transparent becomes white; of a file with several images the first is taken. 16 bits of grey
keep their precision: 65535 is 1.
"""

from __future__ import annotations

import logging
import stat
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastnn.images.files import ImageFile
from fastnn.jobs.words import counted
from fastnn.progress import REDRAW_EVERY, ProgressBar, Verbose

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["BadFiles", "BadImage", "Header", "has_colour", "read_header", "read_images", "read_pixels"]

logger = logging.getLogger(__name__)

#: What Pillow may try, whatever a file's name says. Others are left out: some of them start other programs.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF")
#: Pillow's modes without colour.
GREY = {"1", "L", "LA", "La", "I", "F"}
#: The tag of a TIFF file that says which end is black, and its value where that is not 0.
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
#: The background of what is transparent.
WHITE = (255, 255, 255, 255)


class BadImage(ValueError):
    """Why a file is not taken for an image, without its name."""


class BadFiles:
    """What to do about files that cannot be read: the first one is an error, or with ``skip`` all are counted."""

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self.reasons: dict[ImageFile, str] = {}

    def add(self, file: ImageFile, reason: BadImage) -> None:
        """Take note. Raises ValueError, with the file's name, unless such files are to be skipped."""
        if not self.skip:
            raise ValueError(f"{file}: {reason} (--skip-bad leaves such files out)") from None
        if file not in self.reasons:
            self.reasons[file] = str(reason)

    def report(self) -> None:
        """Say how many there were, and which came first."""
        if self.reasons:
            file, reason = next(iter(self.reasons.items()))
            told = counted(len(self.reasons), "file")
            logger.warning("left out %s that cannot be read, the first: %s: %s", told, file, reason)


@dataclass(frozen=True)
class Header:
    """What the beginning of a file says: the size once the image is turned upright, and whether it may have colour."""

    height: int
    width: int
    may_have_colour: bool


def read_header(file: ImageFile) -> Header:
    """Read the beginning of a file.

    Raises:
        BadImage: it is no image, empty, not a file, too large, or cannot be opened.
    """
    with _opened(file) as image:
        width, height = image.size
        if _lies_on_its_side(image):
            width, height = height, width
        return Header(height, width, image.mode not in GREY and not image.mode.startswith("I;"))


def has_colour(file: ImageFile) -> bool:
    """Whether red, green and blue differ in some pixel.

    Raises:
        BadImage: the file cannot be read.
    """
    with _opened(file) as image:
        plain = _plain(image)
        if plain.mode != "RGB":
            return False
        red, green, blue = np.moveaxis(np.asarray(plain), -1, 0)
        return not (np.array_equal(red, green) and np.array_equal(green, blue))


def read_pixels(file: ImageFile, out: np.ndarray) -> None:
    """Overwrite ``out``, float32 (H, W, C), with an image, resized to fit and made grey or colour by C.

    Resizing is linear, over all the pixels that become one (so that nothing is skipped), and does not keep the ratio of
    the sides.

    Raises:
        BadImage: the file cannot be read.
    """
    from PIL.Image import Resampling

    height, width, channels = out.shape
    with _opened(file) as image:
        plain = _plain(image)
        deep = plain.mode == "F"
        if not deep:
            plain = plain.convert("L" if channels == 1 else "RGB")
        if plain.size != (width, height):
            plain = plain.resize((width, height), Resampling.BILINEAR)
        pixels = np.asarray(plain)
    np.divide(pixels if pixels.ndim == 3 else pixels[:, :, None], np.float32(65535 if deep else 255), out=out)


def read_images(
    files: Sequence[ImageFile], shape: tuple[int, int, int], bad: BadFiles, verbose: Verbose = 0, title: str = ""
) -> tuple[np.ndarray, list[ImageFile]]:
    """Read images into one array.

    Args:
        files: N files.
        shape: (H, W, C).
        bad: what to do about files that cannot be read.
        verbose: as in ``Model.fit``: whether progress is shown.
        title: of the progress bar.

    Returns:
        float32 (M, H, W, C), and the M files that could be read, in their order; 4 bytes a number, and no more.
    """
    x = np.empty((len(files), *shape), np.float32)
    read: list[ImageFile] = []
    with quiet_pillow():
        for file in watched(files, verbose, title):
            try:
                read_pixels(file, x[len(read)])
                read.append(file)
            except BadImage as reason:
                bad.add(file, reason)
    return x[: len(read)], read


def watched(files: Sequence[ImageFile], verbose: Verbose, title: str) -> Iterator[ImageFile]:
    """The files one after the other, with a progress bar if that takes a while."""
    bar = ProgressBar(1, max(1, len(files)), verbose, title=title)
    start = time.perf_counter()
    try:
        bar.epoch_begin(0)
        for done, file in enumerate(files):
            yield file
            bar.update(done + 1, {})
        seconds = time.perf_counter() - start
        if seconds >= REDRAW_EVERY:
            bar.epoch_end(0, {}, seconds)
    finally:
        bar.close()


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow's remarks about odd files are not passed on, but one about a decompression bomb is an error."""
    from PIL.Image import DecompressionBombWarning

    pillow = logging.getLogger("PIL")
    level = pillow.level
    pillow.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", DecompressionBombWarning)
            yield
    finally:
        pillow.setLevel(level)


@contextmanager
def _opened(file: ImageFile) -> Iterator[Image]:
    """The image in a file, not decoded yet. Whatever goes wrong until the block ends is a BadImage."""
    import PIL.Image

    try:
        status = file.path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("is not a file")
        if status.st_size == 0:
            raise BadImage("is empty")
        with open(file.path, "rb") as stream, PIL.Image.open(stream, formats=FORMATS) as image:
            yield image
    except BadImage:
        raise
    except PIL.UnidentifiedImageError:
        raise BadImage(f"is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        limit = PIL.Image.MAX_IMAGE_PIXELS or 0
        raise BadImage(f"has more than {limit / 1e6:.0f} million pixels, Pillow's limit against bombs") from None
    except MemoryError:
        raise BadImage("does not fit in memory") from None
    except OSError as error:
        raise BadImage(f"cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damaged files make Pillow raise SyntaxError, struct.error, KeyError and others
        raise BadImage(f"is damaged: {str(error) or type(error).__name__}") from None


def _plain(image: Image) -> Image:
    """Decode: "L", "RGB", or "F" with values from 0 to 65535; upright and opaque."""
    import PIL.Image
    from PIL.ImageOps import exif_transpose

    image.load()
    with _odd_exif():
        exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise BadImage("holds floating-point numbers; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise BadImage(f"holds values from {values.min()} to {values.max()}; save it with 16 bits, 0 to 65535")
        if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow turns 8 bits round, but not 16
            values = 65535 - values
        return PIL.Image.fromarray(values.astype(np.float32))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _lies_on_its_side(image: Image) -> bool:
    """Whether turning it upright will swap its sides, as far as is known before it is decoded."""
    orientation = 1
    if "exif" in image.info and image.format != "TIFF":  # Pillow gives TIFF images the size they will have
        with _odd_exif():
            orientation = image.getexif().get(0x0112, 1)
    return orientation in (5, 6, 7, 8)


@contextmanager
def _odd_exif() -> Iterator[None]:
    """EXIF data that make no sense say nothing; the image may be fine."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        logger.debug("EXIF data that cannot be read: %s", error)
