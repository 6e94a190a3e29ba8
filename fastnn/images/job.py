"""The whole job on images, what ``fastnn train --images`` does: read, split, normalize, train, evaluate, write."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import numpy as np

from fastnn.images.files import ImageFile, class_files, image_files, shown
from fastnn.images.network import FLIPS, image_layers
from fastnn.images.preprocessor import CHANNELS, ImagePreprocessor
from fastnn.images.reading import (
    BadFiles,
    BadImage,
    Header,
    has_colour,
    quiet_pillow,
    read_header,
    read_images,
    watched,
)
from fastnn.jobs.memory import require_memory
from fastnn.jobs.preprocessor import preprocessing_of
from fastnn.jobs.split import split_rows
from fastnn.jobs.training import Part, Run, TrainingSettings, compiled, finite_outputs, train, write_run
from fastnn.jobs.words import counted, listed, near_misses
from fastnn.progress import Verbose

if TYPE_CHECKING:
    from fastnn.models import Model

__all__ = ["Settings", "evaluate_images", "image_preprocessing", "predict_images", "train_and_write", "train_images"]

logger = logging.getLogger(__name__)

COLORS = ("auto", *CHANNELS)
#: Images of one size keep it if no side is longer than this.
SMALL = 128
DEFAULT_SIZE = (64, 64)
#: Predictions are made for about so many numbers of input at a time, 64 MB.
CHUNK = 1 << 24
#: Bytes that the decoder takes for a pixel of a file, at most: several copies of 16 bits, alpha and so on.
DECODING = 24


@dataclass(frozen=True, kw_only=True)
class Settings(TrainingSettings):
    """How to train on images; the defaults are those of ``fastnn train --images``.

    ``group`` is a regular expression: files whose paths match it alike are of one group, such as one patient.
    """

    size: tuple[int, int] | None = None
    color: str = "auto"
    augment: bool | None = None
    flip: str = "none"
    skip_bad: bool = False
    layers: tuple[int, ...] = ()  # filters of the blocks; (): as the size asks for
    dropout: float = 0.2


def train_images(folder: str | Path, settings: Settings, verbose: Verbose = "auto") -> Run:
    """Train and evaluate a network on the images of ``folder/<class>/``.

    All images are held in memory, 4 bytes a number: 10,000 of 64 x 64 pixels take 160 MB in grey, 490 MB in colour, and
    a fourth more while they are checked.

    Args:
        folder: holds a folder for each class.
        settings: what to do.
        verbose: as in ``Model.fit``.

    Returns:
        The run, not written yet.

    Raises:
        ValueError: bad files or settings, or more than fits in memory.
        FloatingPointError: the loss is no longer a finite number.
    """
    from fastnn.config import set_seed

    _check(settings)
    found = class_files(folder)
    bad = BadFiles(settings.skip_bad)
    files, headers = _headers(found, bad, verbose)
    pre = ImagePreprocessor(size=_size(headers, settings), color=_color(files, headers, settings, verbose))
    labels = np.array([file.label for file in files])
    _require_classes(files, found, bad)
    positive = None if settings.positive is None else normalize("NFC", settings.positive)
    pre.learn_classes(sorted(set(labels.tolist())), positive, f"the folder {shown(folder)}")
    _say_classes(pre, files, settings)
    split = split_rows(
        labels,
        len(files),
        test_size=settings.test_size,
        validation_size=settings.validation_size,
        groups=_groups(files, Path(folder), settings.group),
        seed=settings.seed,
        what="image",
    )
    _require_memory(pre, headers)
    set_seed(settings.seed)
    model = compiled(_layers(pre, settings), pre, settings)
    _require_memory(pre, headers, _network_memory(model, min(settings.batch_size, len(split.train))))

    parts: dict[str, Part] = {}
    for name, places in split._asdict().items():
        if len(places):
            parts[name], read = _part(pre, [files[i] for i in places], bad, verbose, f"Reading images, {name}")
            if name == "train":
                _require_classes(read, found, bad)
    bad.report()
    pre.learn_statistics(parts["train"].inputs)
    for part in parts.values():
        pre.normalize(part.inputs)
    run = train(model, parts, settings, verbose)
    counts = {name: len(part.truth) for name, part in parts.items()}
    images = {"found": len(found), "skipped": len(bad.reasons), **counts}
    told = {"data": shown(folder), "images": images, "size": list(pre.size), "color": pre.color}
    run.metrics = {**told, **run.metrics}
    validation = f" and {counts['validation']} validation" if "validation" in counts else ""
    run.title = f"{shown(Path(folder).resolve().name)}: {counts['train']} training{validation} images"
    return run


def train_and_write(folder: str | Path, settings: Settings, directory: str | Path, verbose: Verbose = "auto") -> Run:
    """``train_images``, and the run's files in ``directory``; after an error nothing in it has changed."""
    return write_run(directory, lambda: train_images(folder, settings, verbose))


def predict_images(
    model: Model, paths: Sequence[str | Path], threshold: float = 0.5, skip_bad: bool = False
) -> dict[str, np.ndarray]:
    """Predict image files.

    Args:
        model: a model of ``train_images``, or loaded from its file.
        paths: files, and folders to be looked through.
        threshold: of two classes the positive one is predicted above this probability.
        skip_bad: leave files out that cannot be read, with a remark.

    Returns:
        Columns (N,) by name: "file", "prediction", and for two classes ``probability_<positive>``, for several one
        ``probability_<class>`` each.

    Raises:
        ValueError: the model does not take images, or a file cannot be read.
    """
    pre = image_preprocessing(model)
    bad = BadFiles(skip_bad)
    files, output = _outputs(model, pre, image_files(paths), bad)
    names = np.array([str(file) for file in files], object)
    return {"file": names, **pre.prediction_columns(output, threshold)}


def evaluate_images(model: Model, folder: str | Path, threshold: float = 0.5, skip_bad: bool = False) -> dict[str, Any]:
    """Metrics of a model on the images of ``folder/<class>/``.

    Returns:
        "images" (their number), "skipped", "kind", "classes", "threshold" (two classes) and the metrics of
        ``fastnn.evaluation``.

    Raises:
        ValueError: the model does not take images, a folder is none of its classes, or a file cannot be read.
    """
    pre = image_preprocessing(model)
    found = class_files(folder, classes=1)
    for label in dict.fromkeys(file.label for file in found):
        if label not in pre.classes:
            near = near_misses(label, pre.classes)
            raise ValueError(f"the folder {label!r} in {shown(folder)} is none of the model's classes{near}")
    bad = BadFiles(skip_bad)
    files, output = _outputs(model, pre, found, bad)
    truth = np.array([pre.classes.index(file.label) for file in files])
    return {"images": len(files), "skipped": len(bad.reasons), **pre.evaluation(truth, output, threshold)}


def image_preprocessing(model: Model) -> ImagePreprocessor:
    """The preprocessing inside a model of images, known to fit its inputs and outputs."""
    return preprocessing_of(model, ImagePreprocessor, "images")


# -------------------------------------------------------------------- before reading


def _check(settings: Settings) -> None:
    for name, value, choices in (("color", settings.color, COLORS), ("flip", settings.flip, FLIPS)):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}. Received: {value!r}")


def _headers(found: Sequence[ImageFile], bad: BadFiles, verbose: Verbose) -> tuple[list[ImageFile], list[Header]]:
    """The files whose beginnings can be read, and what those say."""
    files, headers = [], []
    with quiet_pillow():
        for file in watched(found, verbose, "Looking at images"):
            try:
                headers.append(read_header(file))
                files.append(file)
            except BadImage as reason:
                bad.add(file, reason)
    if not files:
        bad.report()
        raise ValueError(f"none of the {counted(len(found), 'image')} can be read")
    return files, headers


def _require_classes(read: Sequence[ImageFile], found: Sequence[ImageFile], bad: BadFiles) -> None:
    """ValueError unless of each class found there is an image that could be read."""
    lost = dict.fromkeys(file.label for file in found).keys() - {file.label for file in read}
    if lost:
        bad.report()
        raise ValueError(f"no image of class {listed(sorted(lost))} is left to train on")


def _size(headers: Sequence[Header], settings: Settings) -> tuple[int, int]:
    """The size asked for; else that of all images if it is one and small; else 64 x 64."""
    if settings.size is not None:
        return settings.size
    sizes = Counter((header.height, header.width) for header in headers)
    (height, width), _ = sizes.most_common(1)[0]
    if len(sizes) == 1 and max(height, width) <= SMALL:
        return height, width
    told = f"the images are of {height}x{width} pixels"
    if len(sizes) > 1:
        heights, widths = [size[0] for size in sizes], [size[1] for size in sizes]
        told = (
            f"the images are of {len(sizes)} sizes, from {min(heights)} to {max(heights)} pixels high and from"
            f" {min(widths)} to {max(widths)} wide"
        )
    logger.info("%s: resized to %dx%d (choose with --size HxW)", told, *DEFAULT_SIZE)
    return DEFAULT_SIZE


def _color(files: Sequence[ImageFile], headers: Sequence[Header], settings: Settings, verbose: Verbose) -> str:
    """The colour asked for; else "rgb" if any image has colour."""
    if settings.color != "auto":
        return settings.color
    doubtful = [file for file, header in zip(files, headers, strict=True) if header.may_have_colour]
    coloured = None
    with quiet_pillow():
        for file in watched(doubtful, verbose, "Looking for colour") if doubtful else ():
            try:
                if has_colour(file):
                    coloured = file
                    break
            except BadImage:
                continue  # it will be reported when it is read
    if coloured is None:
        logger.info("no image has colour: read as grey")
        return "grey"
    logger.info("%s has colour: all are read in colour (--color grey does without)", coloured)
    return "rgb"


def _say_classes(pre: ImagePreprocessor, files: Sequence[ImageFile], settings: Settings) -> None:
    counts = Counter(file.label for file in files)
    told = ", ".join(f"{name!r} {counts[name]}" for name in pre.classes[:20])
    more = f" and {len(pre.classes) - 20} more" if len(pre.classes) > 20 else ""
    logger.info("%s: %s%s", counted(len(files), "image"), told, more)
    choice = " (choose with --positive)" if settings.positive is None else ""
    if pre.kind == "binary":
        logger.info("%s%s", pre.describe_target(), choice)


def _groups(files: Sequence[ImageFile], folder: Path, pattern: str | None) -> np.ndarray | None:
    """The group of each file (N,): what its path within ``folder`` matches, or the pattern's first group of it."""
    if pattern is None:
        return None
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"the group {pattern!r} is not a regular expression: {error}") from None
    groups = []
    for file in files:
        match = expression.search(file.path.relative_to(folder).as_posix())
        if match is None:
            raise ValueError(f"the group {pattern!r} is not found in {file}")
        groups.append(match.group(1) if expression.groups and match.group(1) is not None else match.group())
    logger.info("%d groups", len(set(groups)))
    return np.array(groups)


def _layers(pre: ImagePreprocessor, settings: Settings) -> list[Any]:
    return image_layers(
        pre,
        settings.layers,
        activation=settings.activation,
        dropout=settings.dropout,
        augment=settings.augment,
        flip=settings.flip,
    )


def _network_memory(model: Model, batch: int) -> int:
    """Bytes that the network needs for itself, in training or in validation."""
    plans = (model.plan(batch_size=batch), model.plan(training=False))
    return 4 * max(plan.arena_size for plan in plans)


def _require_memory(pre: ImagePreprocessor, headers: Sequence[Header], network: int = 0) -> None:
    """Refuse what cannot fit: all images and a mask of a byte a number; the largest file, and then the network."""
    height, width, channels = pre.input_shape
    largest = DECODING * max(header.height * header.width for header in headers)
    images, of = counted(len(headers), "image"), counted(channels, "channel")
    require_memory(
        5 * len(headers) * height * width * channels + max(network, largest),
        f"{images} of {height}x{width} pixels, {of},{' and their network' if network else ''}",
        "a smaller --size helps, fewer --layers, a smaller --batch-size, --color grey",
    )


# -------------------------------------------------------------------- reading


def _part(
    pre: ImagePreprocessor, files: Sequence[ImageFile], bad: BadFiles, verbose: Verbose, title: str
) -> tuple[Part, list[ImageFile]]:
    """One part of the split, not normalized yet, and the files that could be read."""
    inputs, read = read_images(files, pre.input_shape, bad, verbose, title)
    truth = np.array([pre.classes.index(file.label) for file in read], np.int64)
    if not read:
        bad.report()
        raise ValueError(f"none of the {counted(len(files), 'image')} of a part of the split can be read")
    return Part(inputs, truth.astype(np.float32) if pre.kind == "binary" else truth, truth), read


def _outputs(
    model: Model, pre: ImagePreprocessor, found: Sequence[ImageFile], bad: BadFiles
) -> tuple[list[ImageFile], np.ndarray]:
    """The files that could be read, N of them, and the network's outputs for them (N, 1) or (N, K)."""
    step = max(1, CHUNK // int(np.prod(pre.input_shape)))

    def chunks() -> Iterator[tuple[list[ImageFile], np.ndarray]]:
        for start in range(0, len(found), step):
            x, read = read_images(found[start : start + step], pre.input_shape, bad)
            if read:
                pre.normalize(x)
                yield read, finite_outputs(model, x)

    pieces = list(chunks())
    bad.report()
    if not pieces:
        raise ValueError(f"none of the {counted(len(found), 'image')} can be read")
    return [file for read, _ in pieces for file in read], np.concatenate([output for _, output in pieces])
