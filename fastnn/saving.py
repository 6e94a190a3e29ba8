"""Model files: one file, data only.

The arrays are the weights and the optimizer's state; the architecture, the rest of the training state and the
preprocessing are JSON text beside them. Nothing in a file names a module, a path or a command, so opening one runs no
code from it. `fastnn.tensorfile` is the layout.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.tensorfile import FilePath, Tensors, damaged, file_name, parse_json, read_tensors, write_tensors
from fastnn.version import __version__

if TYPE_CHECKING:
    from fastnn.models import Model

__all__ = ["load_model", "read_tensors", "save_model", "write_tensors"]

FORMAT_VERSION = 1

REQUIRED = {"format", "format_version", "architecture", "state", "fastnn_version"}
OPTIONAL = {"preprocessing"}


def save_model(model: Model, path: FilePath, *, allow_nonfinite: bool = False) -> None:
    """Write `model` to the one file `path`: architecture, weights, optimizer, progress and preprocessing.

    The file appears whole or not at all: it is written beside its target, flushed to the disk and then renamed, so a
    crash, a full disk or Ctrl-C leaves an older file as it was. A symbolic link stays a link; the file it points to is
    replaced. An existing file keeps its permissions.

    Args:
        model: the model. If it was compiled and trained, training resumes from the file exactly where it stopped.
        path: the name of the file, used as it is; no suffix is added. Its directory must exist.
        allow_nonfinite: store weights that are NaN or infinite instead of refusing them.

    Raises:
        ValueError: a weight is not finite, a layer, loss, metric or optimizer is of a class of your own, or `path` is a
            directory or another thing that is not a file.
        TypeError: the model holds something that is not data, such as a function of your own.
        OSError: the directory is missing, or the file cannot be written.

    Example:
        >>> import fastnn, os, tempfile
        >>> model = fastnn.Sequential([fastnn.layers.Dense(1, input_shape=(3,))])
        >>> path = os.path.join(tempfile.mkdtemp(), "model.fnn")
        >>> fastnn.saving.save_model(model, path)
        >>> fastnn.load_model(path).count_params()
        4
    """
    name = file_name(path, "save_model")
    from fastnn.models import check_restorable  # models imports this module

    tensors, state = model.state()
    architecture = model.get_config()
    try:
        check_restorable(architecture, state)
    except ValueError as error:
        raise ValueError(f"save_model: {name!r} was not written: {error}") from None
    if not allow_nonfinite:
        _require_finite(tensors, f"save_model: {name!r} was not written")
    metadata = {
        "format": "fastnn",
        "format_version": str(FORMAT_VERSION),
        "fastnn_version": __version__,
        "architecture": _to_json(architecture, "architecture"),
        "state": _to_json(state, "state"),
    }
    if model.preprocessing is not None:
        metadata["preprocessing"] = _to_json(model.preprocessing.to_config(), "preprocessing")
    write_tensors(name, tensors, metadata)


def load_model(path: FilePath, *, allow_nonfinite: bool = False) -> Model:
    """Read the model that `Model.save` wrote to `path`.

    The model comes back as it was saved: compiled if it was, with the optimizer's state and the position in the random
    streams, so that a further `fit` gives the same bits as if training had never stopped. Reading a file from somebody
    else is safe: it holds data only, and what it says is checked before it is used.

    Args:
        path: the name of the file.
        allow_nonfinite: accept weights that are NaN or infinite instead of refusing them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is not a fastnn model, comes from a newer fastnn, or has weights that are not
            finite. The message names the file and what is wrong with it.

    Example:
        >>> import fastnn, numpy as np, os, tempfile
        >>> model = fastnn.Sequential([fastnn.layers.Dense(2, input_shape=(3,))])
        >>> path = os.path.join(tempfile.mkdtemp(), "model.fnn")
        >>> model.save(path)
        >>> x = np.ones((1, 3), np.float32)
        >>> bool((fastnn.load_model(path).predict(x) == model.predict(x)).all())
        True
    """
    name = file_name(path, "load_model")
    tensors, metadata = read_tensors(name)
    _check_metadata(metadata, name)
    architecture = _from_json(metadata["architecture"], "architecture", name)
    state = _from_json(metadata["state"], "state", name)
    if set(architecture) != {"class", "config"}:
        damaged(name, "the architecture must have the keys 'class' and 'config' and no others")
    if not allow_nonfinite:
        _require_finite(tensors, f"load_model: {name!r} was not loaded")

    from fastnn.models import model_from_config  # models imports this module

    try:
        model = model_from_config(architecture, most_weights=sum(array.size for array in tensors.values()))
        model.restore(tensors, state)
        if "preprocessing" in metadata:
            model.preprocessing = _preprocessor(_from_json(metadata["preprocessing"], "preprocessing", name))
    except (KeyError, MemoryError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"load_model: {name!r} does not describe a model: {error}") from error
    return model


def _preprocessor(config: dict[str, Any]) -> Any:
    from fastnn.images import ImagePreprocessor
    from fastnn.tables import TablePreprocessor

    return (ImagePreprocessor if config.get("data") == "images" else TablePreprocessor).from_config(config)


def _check_metadata(metadata: dict[str, str], name: str) -> None:
    if metadata.get("format") != "fastnn":
        damaged(name, "it is a safetensors file, but not a fastnn model")
    version = metadata.get("format_version", "")
    if not re.fullmatch("[1-9][0-9]{0,5}", version):
        damaged(name, f"its format version must be a small positive integer. Received: {version!r:.40}")
    if int(version) > FORMAT_VERSION:
        raise ValueError(
            f"load_model: {name!r} was written by a newer fastnn ({metadata.get('fastnn_version', 'unknown')!r:.40}, "
            f"format {version}). This is fastnn {__version__}, which reads format {FORMAT_VERSION}: update fastnn"
        )
    missing, unknown = REQUIRED - set(metadata), set(metadata) - REQUIRED - OPTIONAL
    if missing or unknown:
        damaged(
            name, f"its metadata lacks {sorted(missing)}" if missing else f"unknown metadata {sorted(unknown)}"[:200]
        )


def _require_finite(tensors: Tensors, outcome: str) -> None:
    for name, array in tensors.items():
        if array.dtype.kind == "f" and array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
            bad = array.size - int(np.isfinite(array).sum())
            raise ValueError(
                f"{outcome}: {bad} of the {array.size} numbers in {name!r} are NaN or infinite. "
                "Pass allow_nonfinite=True to accept them"
            )


def _to_json(value: Any, what: str) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise type(error)(f"save_model: the model's {what} holds something that a file cannot: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r:.80} is not plain data")


def _from_json(text: str, what: str, name: str) -> dict[str, Any]:
    return parse_json(text.encode(errors="surrogatepass"), what, name)
