"""Tables from files, with pandas, and the one that scikit-learn carries.

A table that is read here has the row labels 1, 2, 3, ...: row 1 is the first one under the header.
"""

from __future__ import annotations

import csv
import io
import logging
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastnn.jobs.words import near_misses

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["breast_cancer_table", "read_table"]

logger = logging.getLogger(__name__)

SEPARATORS = ",;\t|"
NAMES_OF_SEPARATORS = {";": "semicolon", "\t": "tab", "|": "bar"}
HEAD = 65536  # bytes or characters looked at to find out what a file is


def read_table(path: str | Path, text_columns: Iterable[str] = ()) -> pd.DataFrame:
    """Read a CSV file with a header line.

    The separator (comma, semicolon, tab or bar), a decimal comma, a byte order mark and the encoding are found out.

    Args:
        path: the file.
        text_columns: columns to be read as they are written, though they may look like numbers.

    Returns:
        A DataFrame of N >= 1 rows with the labels 1..N.

    Raises:
        ValueError: the file is missing, a directory, empty, not text, without rows, or its header and rows do not fit.
    """
    import pandas as pd

    path = Path(path)
    text = _decode(path, _read_bytes(path))
    separator = _separator(text)
    names = _header(path, text, separator)
    wanted = set(text_columns)
    given = [name or f"unnamed {i}" for i, name in enumerate(names)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                io.StringIO(text),
                sep=separator,
                header=0,
                names=given,
                index_col=False,
                skipinitialspace=True,
                low_memory=False,
                decimal="," if separator == ";" and _has_decimal_comma(text) else ".",
                dtype={name: str for name in names if name in wanted},
            )
    except pd.errors.ParserWarning:
        raise ValueError(f"{path}: rows have more values than the {len(names)} names of the header") from None
    except pd.errors.ParserError as error:
        reason = str(error).rstrip().removeprefix("Error tokenizing data. C error: ")
        raise ValueError(f"{path} is not a well-formed CSV file: {reason}") from None
    if not len(frame):
        raise ValueError(f"{path} has a header but no rows")
    whole = [name for name in frame.columns if pd.api.types.is_integer_dtype(frame[name])]
    if whole:  # 01, 02, ... are codes, not numbers
        options: dict[str, Any] = {"sep": separator, "header": 0, "names": list(given), "index_col": False}
        as_text = pd.read_csv(io.StringIO(text), usecols=whole, dtype=str, skipinitialspace=True, **options)
        for name in whole:
            if as_text[name].str.match("[-+]?0[0-9]").any():
                logger.info("%s: column %r has leading zeros: its values are read as names, not numbers", path, name)
                frame[name] = as_text[name]
    unnamed = [i for i, name in enumerate(names) if not name]
    if unnamed:
        logger.warning("%s: column %s has no name: left out", path, ", ".join(str(i + 1) for i in unnamed))
        frame = frame.drop(columns=frame.columns[unnamed])
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return frame


def breast_cancer_table() -> pd.DataFrame:
    """The Wisconsin diagnostic data that scikit-learn carries: 569 rows, 30 numbers and the text column "diagnosis"."""
    from sklearn.datasets import load_breast_cancer

    data: Any = load_breast_cancer(as_frame=True)
    frame: pd.DataFrame = data.data.copy()
    frame["diagnosis"] = [str(data.target_names[code]) for code in data.target]
    frame.index = frame.index + 1
    return frame


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        near = ""
        if path.parent.is_dir():
            near = near_misses(path.name, [other.name for other in path.parent.iterdir()])
        raise ValueError(f"there is no file {path}{near if 'did you mean' in near else ''}") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a directory, not a CSV file") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None


def _decode(path: Path, data: bytes) -> str:
    if data[:4] == b"PK\x03\x04":
        raise ValueError(f"{path} is not a text file but a zip archive or an Excel workbook: save it as CSV")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    else:
        encoding = "utf-8-sig"
        if re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", data[:HEAD]):
            raise ValueError(f"{path} is not a text file")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not a text file") from None
        logger.warning("%s is not UTF-8: read as Windows-1252", path)
    if not text.strip():
        raise ValueError(f"{path} is empty")
    return text.lstrip("\r\n")


def _separator(text: str) -> str:
    line = re.sub(r'"[^"]*"', "", text[:HEAD].splitlines()[0])
    best = max(SEPARATORS, key=line.count)
    if line.count(best) and best != ",":
        logger.info("values are separated by a %s", NAMES_OF_SEPARATORS[best])
    return best


def _header(path: Path, text: str, separator: str) -> list[str]:
    try:
        names = next(csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise ValueError(f"{path} is not a well-formed CSV file: {error}") from None
    names = [name.strip() for name in names]
    twice = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    if twice:
        raise ValueError(f"{path}: column name {twice[0]!r} is used {names.count(twice[0])} times")
    if not any(names):
        raise ValueError(f"{path}: the header has no names")
    return names


def _has_decimal_comma(text: str) -> bool:
    head = text[:HEAD]
    return bool(re.search(r"[;\n]-?\d+,\d+\s*[;\n]", head)) and not re.search(r"[;\n]-?\d+\.\d+\s*[;\n]", head)
