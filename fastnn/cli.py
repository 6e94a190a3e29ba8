"""The command ``fastnn``: train, predict, evaluate, info, bench, config.

Results go to standard output, remarks and errors to standard error. Exit codes: 0 done, 2 bad input (one line says
what), 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastnn.cli_options import Command, build_parser
from fastnn.version import __version__

if TYPE_CHECKING:
    from fastnn.models import Model

__all__ = ["main"]

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130
NEEDS = {"train": ("pandas", "sklearn", "matplotlib"), "predict": ("pandas",), "evaluate": ("pandas",)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (without the program's name; ``sys.argv`` by default) and return the exit code.

    Example:
        >>> main(["--version"])  # doctest: +ELLIPSIS
        fastnn ...
        0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options, rest = build_parser(__version__, COMMANDS).parse_known_args(arguments)
        if options.command == "bench":
            options.rest = arguments[arguments.index("bench") + 1 :]
        elif rest:
            options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else BAD_INPUT
    name = f"fastnn {options.command}"
    logger = logging.getLogger("fastnn")
    level = logger.level
    remarks = _remarks_to_stderr(name, quiet=getattr(options, "quiet", False))
    try:
        _require_extras(options.command)
        return int(options.run(options) or OK)
    except KeyboardInterrupt:
        print(f"{name}: interrupted, nothing written", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (ValueError, TypeError, ArithmeticError, OSError, ImportError, MemoryError, RuntimeError) as error:
        print(f"{name}: error: {_one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    finally:
        logger.removeHandler(remarks)
        logger.setLevel(level)


# -------------------------------------------------------------------- the commands


def _train(options: argparse.Namespace) -> None:
    from fastnn.tables.job import RUN_FILES, Settings, train_and_write
    from fastnn.tables.reading import breast_cancer_table, read_table
    from fastnn.tables.reports import metrics_text

    _apply_engine_options(options)
    if options.data is None:
        frame, options.target = breast_cancer_table(), options.target or "diagnosis"
    elif options.target is None:
        raise ValueError("--target COLUMN is needed: the column to predict")
    else:
        frame = read_table(options.data, options.categorical)
    values: dict[str, Any] = {name: getattr(options, name) for name in Settings.__dataclass_fields__}
    values.update({name: tuple(value) for name, value in values.items() if isinstance(value, list)})
    settings = Settings(**values)
    silent = options.quiet or options.json
    data = options.data or "Wisconsin diagnostic data (scikit-learn)"
    run = train_and_write(frame, settings, options.out, verbose=0 if silent else "auto", data=data)
    metrics = run.metrics
    if options.json:
        _print_json(metrics)
    elif not options.quiet:
        positive = f" (positive class: {metrics['positive']})" if metrics["positive"] else ""
        print(f"\nOn {metrics['rows']['test']} held-out rows{positive}:\n")
        print(metrics_text(metrics["test"], metrics["classes"]))
        if metrics["best_epoch"] < metrics["epochs"]:
            kept = "the model is that of this epoch" if options.patience else "--patience N goes back to it"
            print(f"\nthe validation loss was best in epoch {metrics['best_epoch']} of {metrics['epochs']}; {kept}")
        print(f"\n{options.out}: {', '.join(RUN_FILES)}")


def _predict(options: argparse.Namespace) -> None:
    from fastnn.tables.files import write_text
    from fastnn.tables.job import predict_table, preprocessing_of
    from fastnn.tables.reading import read_table

    model = _load(options)
    pre = preprocessing_of(model)
    _check_threshold(options, pre.kind)
    if options.output and any(_same_file(options.output, other) for other in (options.model, options.data)):
        raise ValueError(f"the output file {options.output} is one of the inputs")
    frame = read_table(options.data, [*pre.text_columns, *options.id])
    result = predict_table(model, frame, 0.5 if options.threshold is None else options.threshold, ids=options.id)
    if options.json:
        text = result.to_json(orient="records", double_precision=9, force_ascii=False, indent=2) + "\n"
    else:
        text = result.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    if options.output and options.output != "-":
        write_text(options.output, text)
    else:
        sys.stdout.write(text)
        sys.stdout.flush()


def _evaluate(options: argparse.Namespace) -> None:
    from fastnn.tables.job import evaluate_table, preprocessing_of
    from fastnn.tables.reading import read_table
    from fastnn.tables.reports import metrics_text

    model = _load(options)
    pre = preprocessing_of(model)
    _check_threshold(options, pre.kind)
    frame = read_table(options.data, pre.text_columns)
    result = evaluate_table(model, frame, 0.5 if options.threshold is None else options.threshold)
    if options.json:
        _print_json({"model": options.model, "data": options.data, **result})
        return
    positive = f" (positive class: {pre.classes[1]}, threshold {result['threshold']:g})" if pre.kind == "binary" else ""
    print(f"On {result['rows']} rows{positive}:\n")
    print(metrics_text(result, result["classes"]))


def _info(options: argparse.Namespace) -> None:
    from fastnn.tables.reports import preprocessing_text

    model = _load(options)
    pre = model.preprocessing
    if options.json:
        _print_json(
            {
                "model": options.model,
                "input_shape": list(model.input_shape),
                "output_shape": list(model.output_shape),
                "parameters": int(model.count_params()),
                "architecture": model.get_config(),
                "preprocessing": None if pre is None else pre.to_config(),
            }
        )
        return
    model.summary()
    print("\nno preprocessing: takes arrays" if pre is None else f"\n{preprocessing_text(pre)}")


def _bench(options: argparse.Namespace) -> int:
    from fastnn import benchmarking

    run: Callable[[list[str]], int | None] = benchmarking.main
    return run(options.rest) or OK


def _config(options: argparse.Namespace) -> None:
    from fastnn import config

    if options.json:
        _print_json(config.get_config())
    else:
        config.show_config()


COMMANDS: dict[str, Command] = {
    "train": _train,
    "predict": _predict,
    "evaluate": _evaluate,
    "info": _info,
    "bench": _bench,
    "config": _config,
}


# -------------------------------------------------------------------- their helpers


def _load(options: argparse.Namespace) -> Model:
    path = Path(options.model)
    if path.is_dir():
        inside = " (there is a model.fnn in it)" if (path / "model.fnn").is_file() else ""
        raise ValueError(f"{path} is a directory, not a model file{inside}")
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    from fastnn.models import load_model

    _apply_engine_options(options)
    model = load_model(str(path))
    if getattr(options, "unknown", None) and model.preprocessing is not None:
        model.preprocessing.unknown = options.unknown
    return model


def _apply_engine_options(options: argparse.Namespace) -> None:
    from fastnn import config

    if getattr(options, "backend", None):
        config.set_backend(options.backend)
    if getattr(options, "threads", None):
        config.set_num_threads(options.threads)


def _check_threshold(options: argparse.Namespace, kind: str) -> None:
    if options.threshold is not None and kind != "binary":
        raise ValueError("--threshold has a meaning for two classes only")


def _require_extras(command: str) -> None:
    for name in NEEDS.get(command, ()):
        if find_spec(name) is None:
            package = "scikit-learn" if name == "sklearn" else name
            raise ImportError(f'{package} is not installed; it comes with: pip install "fastnn-cpu[tables]"')


def _remarks_to_stderr(name: str, quiet: bool) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_RemarkFormatter(name))
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    logger = logging.getLogger("fastnn")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return handler


class _RemarkFormatter(logging.Formatter):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def format(self, record: logging.LogRecord) -> str:
        level = "warning: " if record.levelno >= logging.WARNING else ""
        return f"{self.name}: {level}{record.getMessage()}"


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False))


def _same_file(left: str, right: str) -> bool:
    return os.path.realpath(left) == os.path.realpath(right)
