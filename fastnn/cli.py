"""The command ``fastnn``: train, predict, evaluate, info, bench, config.

Results go to standard output, remarks and errors to standard error. Exit codes: 0 done, 2 bad input (one line says
what), 130 interrupted.
"""

from __future__ import annotations

import argparse
import csv
import io
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
    from fastnn.jobs.training import Run
    from fastnn.models import Model
    from fastnn.progress import Verbose

__all__ = ["main"]

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130
#: The extra that brings a package, and the package's name to pip.
EXTRAS = {
    "pandas": ("tables", "pandas"),
    "sklearn": ("tables", "scikit-learn"),
    "matplotlib": ("tables", "matplotlib"),
    "PIL": ("images", "pillow"),
}


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
    from fastnn.jobs.reports import metrics_text
    from fastnn.jobs.training import RUN_FILES

    _require("sklearn", "matplotlib", "PIL" if options.images else "pandas")
    _apply_engine_options(options)
    run = (_train_images if options.images else _train_table)(options)
    metrics = run.metrics
    if options.json:
        _print_json(metrics)
    elif not options.quiet:
        what = "images" if options.images else "rows"
        positive = f" (positive class: {metrics['positive']})" if metrics["positive"] else ""
        print(f"\nOn {metrics[what]['test']} held-out {what}{positive}:\n")
        print(metrics_text(metrics["test"], metrics["classes"]))
        if metrics["best_epoch"] < metrics["epochs"]:
            patience = metrics["settings"]["patience"]
            kept = "the model is that of this epoch" if patience else "--patience N goes back to it"
            print(f"\nthe validation loss was best in epoch {metrics['best_epoch']} of {metrics['epochs']}; {kept}")
        print(f"\n{options.out}: {', '.join(RUN_FILES)}")


def _train_table(options: argparse.Namespace) -> Run:
    from fastnn.images.job import Settings as ImageSettings
    from fastnn.tables.job import Settings, train_and_write
    from fastnn.tables.reading import breast_cancer_table, read_table

    given = _settings(options, Settings, ImageSettings, "needs --images")
    if options.data is None:
        frame, data = breast_cancer_table(), "Wisconsin diagnostic data (scikit-learn)"
        given.setdefault("target", "diagnosis")
    elif "target" not in given:
        hint = "; a folder of images needs --images" if Path(options.data).is_dir() else ""
        raise ValueError(f"--target COLUMN is needed: the column to predict{hint}")
    else:
        frame, data = read_table(options.data, given.get("categorical", ())), options.data
    return train_and_write(frame, Settings(**given), options.out, _verbose(options), data)


def _train_images(options: argparse.Namespace) -> Run:
    from fastnn.images.job import Settings, train_and_write
    from fastnn.tables.job import Settings as TableSettings

    given = _settings(options, Settings, TableSettings, "has no meaning with --images")
    if options.data is None:
        raise ValueError("--images needs a folder that holds a folder of images for each class")
    return train_and_write(options.data, Settings(**given), options.out, _verbose(options))


def _predict(options: argparse.Namespace) -> None:
    from fastnn.jobs.files import write_text

    model = _load(options)
    _check_threshold(options, model)
    if options.output and any(_same_file(options.output, other) for other in (options.model, *options.data)):
        raise ValueError(f"the output file {options.output} is one of the inputs")
    text = (_predict_images if _takes_images(model) else _predict_table)(options, model)
    if options.output and options.output != "-":
        write_text(options.output, text)
    else:
        sys.stdout.write(text)
        sys.stdout.flush()


def _predict_table(options: argparse.Namespace, model: Model) -> str:
    from fastnn.tables.job import predict_table, table_preprocessing
    from fastnn.tables.reading import read_table

    _require("pandas")
    pre = table_preprocessing(model)
    if len(options.data) > 1:
        raise ValueError(f"the model takes one CSV file. Received: {len(options.data)} files")
    _refuse(options, "skip_bad", "has a meaning for images only")
    frame = read_table(options.data[0], [*pre.text_columns, *options.id])
    result = predict_table(model, frame, _threshold(options), ids=options.id)
    if options.json:
        return result.to_json(orient="records", double_precision=9, force_ascii=False, indent=2) + "\n"
    return result.to_csv(index=False, float_format="%.9g", lineterminator="\n")


def _predict_images(options: argparse.Namespace, model: Model) -> str:
    from fastnn.images.job import predict_images

    _require("PIL")
    _refuse(options, "id", "has a meaning for tables only")
    columns = predict_images(model, options.data, _threshold(options), options.skip_bad)
    rows = [[_digits(value) for value in row] for row in zip(*columns.values(), strict=True)]
    if options.json:
        records = [dict(zip(columns, row, strict=True)) for row in rows]
        return json.dumps(records, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _evaluate(options: argparse.Namespace) -> None:
    from fastnn.jobs.reports import metrics_text

    model = _load(options)
    _check_threshold(options, model)
    if _takes_images(model):
        from fastnn.images.job import evaluate_images

        _require("PIL")
        what, result = "images", evaluate_images(model, options.data, _threshold(options), options.skip_bad)
    else:
        from fastnn.tables.job import evaluate_table, table_preprocessing
        from fastnn.tables.reading import read_table

        _require("pandas")
        _refuse(options, "skip_bad", "has a meaning for images only")
        frame = read_table(options.data, table_preprocessing(model).text_columns)
        what, result = "rows", evaluate_table(model, frame, _threshold(options))
    if options.json:
        _print_json({"model": options.model, "data": options.data, **result})
        return
    classes = result["classes"]
    positive = f" (positive class: {classes[1]}, threshold {result['threshold']:g})" if "threshold" in result else ""
    print(f"On {result[what]} {what}{positive}:\n")
    print(metrics_text(result, classes))


def _info(options: argparse.Namespace) -> None:
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
    print("\nno preprocessing: takes arrays" if pre is None else f"\n{pre.describe()}")


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
        if _takes_images(model):
            _refuse(options, "unknown", "has a meaning for tables only")
        model.preprocessing.unknown = options.unknown
    return model


def _takes_images(model: Model) -> bool:
    from fastnn.images import ImagePreprocessor

    return isinstance(model.preprocessing, ImagePreprocessor)


def _settings(options: argparse.Namespace, ours: type[Any], theirs: type[Any], why: str) -> dict[str, Any]:
    """The settings that were given, for the job's own class; those of the other job alone are refused."""
    given = vars(options)
    for name in theirs.__dataclass_fields__.keys() - ours.__dataclass_fields__.keys():
        if name in given:
            raise ValueError(f"{_spelled(name)} {why}")
    values = {name: given[name] for name in ours.__dataclass_fields__ if name in given}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _spelled(name: str) -> str:
    """The option that sets an attribute."""
    return "--" + {"na_values": "na"}.get(name, name).replace("_", "-")


def _refuse(options: argparse.Namespace, name: str, why: str) -> None:
    if getattr(options, name):
        raise ValueError(f"{_spelled(name)} {why}")


def _apply_engine_options(options: argparse.Namespace) -> None:
    from fastnn import config

    if getattr(options, "backend", None):
        config.set_backend(options.backend)
    if getattr(options, "threads", None):
        config.set_num_threads(options.threads)


def _check_threshold(options: argparse.Namespace, model: Model) -> None:
    if options.threshold is not None and getattr(model.preprocessing, "kind", "binary") != "binary":
        raise ValueError("--threshold has a meaning for two classes only")


def _threshold(options: argparse.Namespace) -> float:
    return 0.5 if options.threshold is None else float(options.threshold)


def _verbose(options: argparse.Namespace) -> Verbose:
    return 0 if options.quiet or options.json else "auto"


def _require(*packages: str) -> None:
    for name in packages:
        if find_spec(name) is None:
            extra, package = EXTRAS[name]
            raise ImportError(f'{package} is not installed; it comes with: pip install "fastnn-cpu[{extra}]"')


def _digits(value: Any) -> Any:
    """A probability as it is written; text as it is."""
    return value if isinstance(value, str) else float(f"{value:.9g}")


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
