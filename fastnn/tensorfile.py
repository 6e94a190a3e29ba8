"""Arrays and text in one file: the safetensors layout, read with suspicion and written whole or not at all.

A file is eight bytes with the length of the header, the header in JSON, then the raw arrays. The header's
``__metadata__`` holds text by name, with a SHA-256 of the file among it. Every length that a file announces is checked
against the bytes that are there before memory is taken for it.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

import numpy as np

__all__ = ["FilePath", "Tensors", "damaged", "file_name", "parse_json", "read_tensors", "write_tensors"]

DTYPES = {"F64": "<f8", "I64": "<i8", "F32": "<f4", "I32": "<i4", "U8": "|u1"}
CODES = {np.dtype(text): code for code, text in DTYPES.items()}

MAX_HEADER = 16 * 2**20
MAX_TENSORS = 100_000
MAX_RANK = 8
MAX_NAME = 256
MAX_DEPTH = 64
MAX_PARTS = 5 * MAX_TENSORS

METADATA = "__metadata__"
BLANK = "0" * 64

FilePath = str | os.PathLike[str]
Tensors = dict[str, np.ndarray]


# ---------------------------------------------------------------- tensors: writing


def write_tensors(path: FilePath, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Write arrays and text to a safetensors file, whole or not at all.

    Args:
        path: the name of the file; its directory must exist.
        tensors: arrays of float32, float64, int32, int64 or uint8 with at most 8 axes, by name.
        metadata: text by name. The name ``sha256`` is taken: the file's checksum goes there.

    Raises:
        TypeError, ValueError: an array, a name or a text cannot be stored. Nothing was written.
        OSError: the directory is missing or the file cannot be written. An older file is as it was.

    Example:
        >>> import numpy as np, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "arrays.safetensors")
        >>> write_tensors(path, {"a": np.arange(3)}, {"made by": "hand"})
        >>> read_tensors(path)
        ({'a': array([0, 1, 2])}, {'made by': 'hand'})
    """
    name = file_name(path, "write_tensors")
    arrays = _storable(tensors)
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise TypeError("write_tensors: metadata must have text for names and values")
    if "sha256" in metadata:
        raise ValueError("write_tensors: metadata must not contain 'sha256'; it is computed")
    header: dict[str, Any] = {METADATA: {**metadata, "sha256": BLANK}}
    end = 0
    for key, array in arrays:
        begin, end = end, end + array.nbytes
        header[key] = {"dtype": CODES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(
            f"write_tensors: the names and metadata take {len(text)} bytes; at most {MAX_HEADER} can be stored"
        )
    import hashlib  # brings OpenSSL, which takes long to load

    size = len(text).to_bytes(8, "little")
    parts = [array.reshape(-1).view(np.uint8).data for _, array in arrays if array.size]
    digest = hashlib.sha256(size + text)
    for part in parts:
        digest.update(part)
    before, _, after = text.rpartition(_checksum_field(BLANK))
    write_atomically(name, [memoryview(size + before + _checksum_field(digest.hexdigest()) + after), *parts])


def _checksum_field(value: str) -> bytes:
    """The checksum as it stands in the header: the last text of this form, since it is the last of the metadata."""
    return f'"sha256":"{value}"'.encode(errors="replace")


def _storable(tensors: Tensors) -> list[tuple[str, np.ndarray]]:
    """Little-endian C-contiguous arrays in file order: wide types first, so that each one is aligned."""
    if len(tensors) > MAX_TENSORS:
        raise ValueError(f"write_tensors: at most {MAX_TENSORS} tensors can be stored. Received: {len(tensors)}")
    arrays = []
    for name, array in tensors.items():
        if not isinstance(name, str):
            raise TypeError(f"write_tensors: the names of tensors must be text. Received: {name!r}")
        if not 0 < len(name) <= MAX_NAME or name == METADATA:
            raise ValueError(
                f"write_tensors: a tensor's name must have 1 to {MAX_NAME} characters. Received: {name!r:.80}"
            )
        array = np.asarray(array)
        stored = array.dtype.newbyteorder("<")
        if stored not in CODES:
            known = ", ".join(str(dtype) for dtype in CODES)
            raise TypeError(
                f"write_tensors: tensor {name!r} must have one of the dtypes {known}. Received: {array.dtype}"
            )
        if array.ndim > MAX_RANK:
            raise ValueError(
                f"write_tensors: tensor {name!r} must have at most {MAX_RANK} axes. Received: {array.ndim}"
            )
        arrays.append((name, np.asarray(array, dtype=stored, order="C")))
    return sorted(arrays, key=lambda pair: (-pair[1].itemsize, pair[0]))


def write_atomically(name: str, parts: list[memoryview]) -> None:
    """Write the parts to a file, all or nothing: the file is as it was if anything fails."""
    target = os.path.realpath(name)  # through a symbolic link: the link stays
    directory = os.path.dirname(target)
    if not os.path.isdir(directory):
        raise FileNotFoundError(errno.ENOENT, f"cannot save to {name!r}, the directory does not exist", directory)
    try:
        old = os.lstat(target)
    except FileNotFoundError:
        mode = None
    else:
        if not stat.S_ISREG(old.st_mode):
            raise ValueError(f"cannot save to {name!r}: it exists and is not a regular file")
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "the file exists and is write-protected", target)
        mode = stat.S_IMODE(old.st_mode)

    temporary = os.path.join(directory, f".fastnn-{os.urandom(8).hex()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = os.open(temporary, flags, 0o666)  # less the umask
        try:
            for part in parts:
                while part:
                    part = part[os.write(file, part) :]
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(file, mode)
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            error.filename, error.filename2 = target, None
        raise
    _sync_directory(directory)


def _sync_directory(directory: str) -> None:
    """Make the rename survive a power cut, where the system can do that."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no such call
            error.filename = directory
            raise
    finally:
        os.close(handle)


# ---------------------------------------------------------------- tensors: reading


class _Entry(NamedTuple):
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read_tensors(path: FilePath, *, require_checksum: bool = True) -> tuple[Tensors, dict[str, str]]:
    """Read a safetensors file; returns its arrays by name, in file order, and its metadata without the checksum.

    Args:
        path: the name of the file.
        require_checksum: refuse a file without a checksum. A file that another program wrote has none: pass False.
            A checksum that is there is verified in any case.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a regular file, or is cut short, altered or malformed in any other way.

    Example:
        >>> import numpy as np, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "arrays.safetensors")
        >>> write_tensors(path, {"a": np.zeros((2, 3), np.float32)}, {})
        >>> read_tensors(path)[0]["a"].shape
        (2, 3)
    """
    name = file_name(path, "read_tensors")
    # Without O_NONBLOCK, opening a named pipe would wait for a writer before it could be refused.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(name, flags)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "there is no such file", name) from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{name!r} is not a regular file")
        with os.fdopen(handle, "rb", buffering=0, closefd=False) as file:
            return _read(file, status.st_size, name, require_checksum)
    finally:
        os.close(handle)


def _read(file: Any, size: int, name: str, require_checksum: bool) -> tuple[Tensors, dict[str, str]]:
    if size < 8:
        damaged(name, f"it has only {size} bytes")
    prefix = _fill(file, bytearray(8), name)
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER:
        damaged(name, f"a header of {length} bytes is announced; at most {MAX_HEADER} are allowed")
    if length > size - 8:
        damaged(name, f"a header of {length} bytes is announced, but only {size - 8} bytes follow")
    text = _fill(file, bytearray(length), name)
    metadata, entries = _parse_header(bytes(text), size - 8 - length, name)

    import hashlib

    stored = metadata.pop("sha256", None)
    if stored is None and require_checksum:
        damaged(name, "it has no checksum, so fastnn did not write it or it was altered")
    digest = hashlib.sha256(prefix)
    if stored is not None:
        before, field, after = bytes(text).rpartition(_checksum_field(stored))
        digest.update(before + _checksum_field(BLANK) + after if field else text)
    tensors = {}
    for entry in entries:
        array = np.empty(entry.shape, entry.dtype)
        if array.size:
            data = _fill(file, array.reshape(-1).view(np.uint8).data, name)
            if stored is not None:
                digest.update(data)
        tensors[entry.name] = array.astype(entry.dtype.newbyteorder("="), copy=False)
    if file.read(1):
        damaged(name, "it grew while it was read")
    if stored is not None and stored != digest.hexdigest():
        damaged(name, "its checksum does not match its contents")
    return tensors, metadata


def _fill(file: Any, buffer: Any, name: str) -> Any:
    view = memoryview(buffer)
    while view:
        count = file.readinto(view)
        if not count:
            damaged(name, "it was cut short while it was read")
        view = view[count:]
    return buffer


def _parse_header(text: bytes, data_size: int, name: str) -> tuple[dict[str, str], list[_Entry]]:
    if not text.startswith(b"{"):
        damaged(name, "its header does not begin with '{'")
    header = parse_json(text, "header", name)
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        damaged(name, "its metadata must be a table of texts")
    if len(header) > MAX_TENSORS:
        damaged(name, f"it has {len(header)} tensors; at most {MAX_TENSORS} are allowed")
    entries = sorted((_entry(key, value, name) for key, value in header.items()), key=lambda e: (e.begin, e.end))
    end = 0
    for entry in entries:
        if entry.begin != end:
            problem = "overlaps" if entry.begin < end else "leaves a gap after"
            damaged(name, f"tensor {entry.name!r:.80} begins at byte {entry.begin}, which {problem} the one before it")
        end = entry.end
    if end != data_size:
        damaged(name, f"its tensors take {end} bytes, but the file holds {data_size}")
    return metadata, entries


def _entry(key: str, value: Any, name: str) -> _Entry:
    def sizes(field: str) -> list[int]:
        numbers = value[field]
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            damaged(name, f"{field} of tensor {key!r:.80} must be a list of integers that are not negative")
        return numbers

    if not 0 < len(key) <= MAX_NAME:
        damaged(name, f"a tensor's name must have 1 to {MAX_NAME} characters. Received: {key!r:.80}")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        damaged(name, f"tensor {key!r:.80} must have the keys 'dtype', 'shape' and 'data_offsets' and no others")
    if not isinstance(value["dtype"], str) or value["dtype"] not in DTYPES:
        damaged(
            name, f"dtype of tensor {key!r:.80} must be one of {', '.join(DTYPES)}. Received: {value['dtype']!r:.40}"
        )
    dtype, shape, offsets = np.dtype(DTYPES[value["dtype"]]), sizes("shape"), sizes("data_offsets")
    if len(shape) > MAX_RANK:
        damaged(name, f"tensor {key!r:.80} has {len(shape)} axes; at most {MAX_RANK} are allowed")
    if len(offsets) != 2:
        damaged(name, f"data_offsets of tensor {key!r:.80} must be two integers")
    begin, end = offsets
    if math.prod(shape) * dtype.itemsize != end - begin:
        damaged(name, f"tensor {key!r:.80} of shape {shape} does not fill its {end - begin} bytes")
    if not math.prod(shape) and math.prod(n for n in shape if n) >= 2**60:
        damaged(name, f"shape {shape} of tensor {key!r:.80} is too large")
    return _Entry(key, dtype, tuple(shape), begin, end)


# ---------------------------------------------------------------- JSON and names


def parse_json(text: bytes, what: str, name: str) -> dict[str, Any]:
    """A JSON object, read strictly: no key twice, no NaN or infinity, no deep nesting, no millions of empty parts."""
    if max(text.count(b"[") + text.count(b"{"), text.count(b":")) > MAX_PARTS:
        damaged(name, f"its {what} has more than {MAX_PARTS} parts")

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ValueError(f"the key {twice!r:.80} is there twice")
        return result

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"{digits:.40} is not a finite number")
        return value

    try:
        value = json.loads(text.decode(), object_pairs_hook=table, parse_float=number, parse_constant=number)
    except RecursionError:
        damaged(name, f"its {what} is nested more than {MAX_DEPTH} deep")
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        damaged(name, f"its {what} is not valid JSON: {error}")
    if not isinstance(value, dict):
        damaged(name, f"its {what} must be a JSON object")
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
        level = [child for child in level if isinstance(child, (dict, list))]
    if level:
        damaged(name, f"its {what} is nested more than {MAX_DEPTH} deep")
    return value


def file_name(path: Any, caller: str) -> str:
    """The path as text, or an error that names `caller`."""
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(name, str):
        raise TypeError(f"{caller}: path must be a text or a pathlib.Path. Received: {path!r:.80}")
    if not name or "\0" in name:
        raise ValueError(f"{caller}: path must be the name of a file. Received: {name!r:.80}")
    return name


def damaged(name: str, problem: str) -> NoReturn:
    """Reject the file `name`."""
    raise ValueError(f"{name!r} is not a usable model file: {problem}")
