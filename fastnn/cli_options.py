"""The options of the command ``fastnn``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar

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
    parser = OneLineParser(
        prog="fastnn", description="Neural networks for tables, trained and run on the CPU.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"fastnn {version}")
    found = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, text: str, *, add_help: bool = True) -> argparse.ArgumentParser:
        command = found.add_parser(name, help=text, description=text, allow_abbrev=False, add_help=add_help)
        command.set_defaults(run=commands[name], parser=command)
        return command

    _train_options(add("train", "Train a network on a table and evaluate it on rows that were held out."))
    _predict_options(add("predict", "Predict the rows of a CSV file with a trained model."))
    _evaluate_options(add("evaluate", "Measure a trained model on a CSV file with a known target."))
    info = add("info", "Describe a model file.")
    info.add_argument("model", metavar="MODEL", help="model file")
    _json_option(info)
    add("bench", "Measure the speed on this machine.", add_help=False)
    _json_option(add("config", "Say which backend, instruction set and number of threads are used."))
    return parser


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA.csv", nargs="?", help="table (default: Wisconsin diagnostic data)")
    table = parser.add_argument_group("the table")
    table.add_argument("--target", metavar="COLUMN", help="column to predict (built-in data: diagnosis)")
    table.add_argument("--task", choices=("auto", "classification", "regression"), default="auto", help="default auto")
    table.add_argument("--positive", metavar="NAME", help="positive class of two (default: the second in sorted order)")
    table.add_argument("--drop", metavar="COLUMN", action="append", default=[], help="leave a column out; repeatable")
    table.add_argument(
        "--categorical", metavar="COLUMN", action="append", default=[], help="numbers that are categories; repeatable"
    )
    table.add_argument(
        "--na", metavar="TEXT", dest="na_values", action="append", default=[], help="means a missing value; repeatable"
    )
    table.add_argument("--missing", choices=("drop", "impute"), default="drop", help="rows with missing values")
    table.add_argument("--unknown", choices=("error", "ignore"), default="error", help="new categories at predict time")
    split = parser.add_argument_group("the split")
    split.add_argument("--group", metavar="COLUMN", help="keep rows of one group (one patient) in one part; no feature")
    split.add_argument("--test-size", type=_share, default=0.2, metavar="SHARE", help="rows held out (default 0.2)")
    split.add_argument(
        "--validation-size", type=_share_or_none, default=0.2, metavar="SHARE", help="of the others (default 0.2)"
    )
    net = parser.add_argument_group("the network and its training")
    net.add_argument("--layers", type=_layers, default=(64, 32), metavar="N,N", help='"none", or units (default 64,32)')
    net.add_argument("--activation", default="relu", metavar="NAME", help="of the hidden layers (default relu)")
    net.add_argument("--dropout", type=_share_or_none, default=0.0, metavar="RATE", help="after each (default 0)")
    net.add_argument("--optimizer", choices=("adam", "adamw", "rmsprop", "sgd"), default="adam", help="default adam")
    net.add_argument("--learning-rate", type=_positive, metavar="RATE", help="default: the optimizer's")
    net.add_argument("--epochs", type=_count, default=100, metavar="N", help="default 100")
    net.add_argument("--batch-size", type=_count, default=32, metavar="N", help="default 32")
    net.add_argument(
        "--patience", type=_count_or_0, default=20, metavar="N",
        help="stop N epochs after the best one, and go back to it; 0: never; default 20",
    )  # fmt: skip
    net.add_argument("--class-weight", choices=("balanced",), help="weigh rare classes more")
    net.add_argument("--seed", type=_seed, default=0, metavar="N", help="of split, weights and shuffling (default 0)")
    _engine_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--out", metavar="DIR", default="fastnn-run", help="default fastnn-run")
    output.add_argument("--quiet", action="store_true", help="write the files, print warnings only")
    _json_option(output)


def _predict_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument("data", metavar="NEW.csv", help="raw rows")
    parser.add_argument("-o", "--output", metavar="OUT.csv", help="default: standard output")
    parser.add_argument("--id", metavar="COLUMN", action="append", default=[], help="copy a column through; repeatable")
    _model_options(parser)


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument("data", metavar="DATA.csv", help="raw rows with the target")
    _model_options(parser)


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threshold", type=_share_or_none, metavar="P", help="positive above it (default 0.5)")
    parser.add_argument("--unknown", choices=("error", "ignore"), help="categories never seen (default: as trained)")
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


def _layers(text: str) -> tuple[int, ...]:
    if text.strip().lower() == "none":
        return ()
    told = "whole numbers from 1 on, such as 64,32"
    return tuple(_checked(part, int, lambda number: number >= 1, told) for part in text.split(","))


def _checked(text: str, kind: type[Number], rule: Callable[[Number], bool], told: str) -> Number:
    value: Number | None
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not rule(value):
        raise argparse.ArgumentTypeError(f"must be {told}. Received: {text!r}")
    return value
