"""The options of the command ``fastnn``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

__all__ = ["build_parser"]

Number = TypeVar("Number", int, float)
Command = Callable[[argparse.Namespace], int | None]


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print ``fastnn train: error: ...`` and exit with 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def build_parser(version: str, commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser; ``commands`` says what runs each of train, predict, evaluate, info, bench and config."""
    text = "Neural networks for tables and images, trained and run on the CPU."
    parser = OneLineParser(prog="fastnn", description=text, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fastnn {version}")
    found = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, text: str, *, add_help: bool = True) -> argparse.ArgumentParser:
        command = found.add_parser(name, help=text, description=text, allow_abbrev=False, add_help=add_help)
        command.set_defaults(run=commands[name], parser=command)
        return command

    _train_options(add("train", "Train a network on a table or on images and evaluate it on what was held out."))
    _predict_options(add("predict", "Predict the rows of a CSV file, or images, with a trained model."))
    _evaluate_options(add("evaluate", "Measure a trained model on a CSV file, or images, with a known target."))
    info = add("info", "Describe a model file.")
    info.add_argument("model", metavar="MODEL", help="model file")
    _json_option(info)
    add("bench", "Measure the speed on this machine.", add_help=False)
    _json_option(add("config", "Say which backend, instruction set and number of threads are used."))
    return parser


def _train_options(parser: argparse.ArgumentParser) -> None:
    """What is not given has no attribute: the defaults are those of the jobs' settings."""
    parser.add_argument(
        "data", metavar="DATA", nargs="?",
        help="CSV file (default: Wisconsin diagnostic data); with --images, a folder that holds one for each class",
    )  # fmt: skip
    parser.add_argument("--images", action="store_true", help="DATA is a folder of PNG, JPEG, BMP, TIFF or GIF files")
    table = _Given(parser.add_argument_group("tables"))
    table.add("--target", metavar="COLUMN", help="column to predict (built-in data: diagnosis)")
    table.add("--task", choices=("auto", "classification", "regression"), help="default auto")
    table.add("--drop", metavar="COLUMN", action="append", help="leave a column out; repeatable")
    table.add("--categorical", metavar="COLUMN", action="append", help="numbers that are categories; repeatable")
    table.add("--na", metavar="TEXT", dest="na_values", action="append", help="means a missing value; repeatable")
    table.add("--missing", choices=("drop", "impute"), help="rows with missing values: default drop")
    table.add("--unknown", choices=("error", "ignore"), help="new categories at predict time: default error")
    images = _Given(parser.add_argument_group("images"))
    images.add("--size", type=_size, metavar="HxW", help="resize to (default: their size if one and small, or 64x64)")
    images.add("--color", choices=("auto", "grey", "rgb"), help="default auto: rgb if any image has colour")
    images.add("--augment", action=argparse.BooleanOptionalAction, help="turn, zoom, move a bit (default: from 16x16)")
    images.add(
        "--flip", choices=("none", "horizontal", "vertical", "both"),
        help="flip at random in training, where classes do not depend on the side; default none",
    )  # fmt: skip
    images.add("--skip-bad", action="store_true", help="leave files out that cannot be read")
    split = _Given(parser.add_argument_group("the split"))
    split.add("--positive", metavar="NAME", help="positive class of two (default: the second in sorted order)")
    split.add(
        "--group", metavar="COLUMN",
        help="keep rows of one group (one patient) in one part; no feature. Images: a regular expression, such as "
        "'p[0-9]+'; those whose paths match it alike are one group",
    )  # fmt: skip
    split.add("--test-size", type=_share, metavar="SHARE", help="rows held out (default 0.2)")
    split.add("--validation-size", type=_share_or_none, metavar="SHARE", help="of the others (default 0.2)")
    net = _Given(parser.add_argument_group("the network and its training"))
    net.add(
        "--layers", type=_layers, metavar="N,N",
        help='"none", or units (default 64,32); images: filters of each block (default: by the size)',
    )  # fmt: skip
    net.add("--activation", metavar="NAME", help="of the hidden layers (default relu)")
    net.add("--dropout", type=_share_or_none, metavar="RATE", help="after each (default 0), images: once (0.2)")
    net.add("--optimizer", choices=("adam", "adamw", "rmsprop", "sgd"), help="default adam")
    net.add("--learning-rate", type=_positive, metavar="RATE", help="default: the optimizer's")
    net.add("--epochs", type=_count, metavar="N", help="default 100")
    net.add("--batch-size", type=_count, metavar="N", help="default 32")
    net.add(
        "--patience", type=_count_or_0, metavar="N",
        help="stop N epochs after the best one, and go back to it; 0: never; default 20",
    )  # fmt: skip
    net.add("--class-weight", choices=("balanced",), help="weigh rare classes more")
    net.add("--seed", type=_seed, metavar="N", help="of split, weights and shuffling (default 0)")
    _engine_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--out", metavar="DIR", default="fastnn-run", help="default fastnn-run")
    output.add_argument("--quiet", action="store_true", help="write the files, print warnings only")
    _json_option(output)


class _Given:
    """A group of options that leave no trace where they are not given."""

    def __init__(self, group: argparse._ArgumentGroup) -> None:
        self._group = group

    def add(self, name: str, **settings: Any) -> None:
        self._group.add_argument(name, default=argparse.SUPPRESS, **settings)


def _predict_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument("data", metavar="NEW", nargs="+", help="CSV file of raw rows; or image files and folders")
    parser.add_argument("-o", "--output", metavar="OUT.csv", help="default: standard output")
    parser.add_argument("--id", metavar="COLUMN", action="append", default=[], help="copy a column through; repeatable")
    _model_options(parser)


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument("data", metavar="DATA", help="CSV file of raw rows with the target; or a folder of images")
    _model_options(parser)


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threshold", type=_share_or_none, metavar="P", help="positive above it (default 0.5)")
    parser.add_argument("--unknown", choices=("error", "ignore"), help="categories never seen (default: as trained)")
    parser.add_argument("--skip-bad", action="store_true", help="leave image files out that cannot be read")
    _engine_options(parser)
    _json_option(parser)


def _engine_options(parser: argparse.ArgumentParser) -> None:
    engine = parser.add_argument_group("the engine")
    engine.add_argument("--threads", type=_count, metavar="N", help="default: the CPUs of this process")
    engine.add_argument("--backend", choices=("auto", "native", "numba", "numpy"), help="default auto")


def _json_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for a program to read")


# -------------------------------------------------------------------- values of options


def _count_or_0(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _count(text: str) -> int:
    return _checked(text, int, lambda number: number >= 1, "a whole number from 1 on")


def _seed(text: str) -> int:
    return _checked(text, int, lambda number: 0 <= number < 2**32, "a whole number from 0 to 4294967295")


def _positive(text: str) -> float:
    return _checked(text, float, lambda number: 0 < number < math.inf, "a number above 0")


def _share(text: str) -> float:
    return _checked(text, float, lambda number: 0 < number < 1, "above 0 and below 1")


def _share_or_none(text: str) -> float:
    return _checked(text, float, lambda number: 0 <= number < 1, "from 0 to below 1")


def _size(text: str) -> tuple[int, int]:
    told = "two whole numbers from 1 to 16384, such as 64x48 (height x width)"
    height, x, width = text.lower().partition("x")
    sides = (height, width if x else height)  # one number is both
    rows, columns = [_checked(side, int, lambda number: 1 <= number <= 16384, told, text) for side in sides]
    return rows, columns


def _layers(text: str) -> tuple[int, ...]:
    if text.strip().lower() == "none":
        return ()
    told = "whole numbers from 1 on, such as 64,32"
    return tuple(_checked(part, int, lambda number: number >= 1, told) for part in text.split(","))


def _checked(text: str, kind: type[Number], rule: Callable[[Number], bool], told: str, whole: str = "") -> Number:
    value: Number | None
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not rule(value):
        raise argparse.ArgumentTypeError(f"must be {told}. Received: {whole or text!r}")
    return value
