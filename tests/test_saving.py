"""Model files: the layout, every way in which one can be damaged, and writes that fail half-way."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

import fastnn
from fastnn import tensorfile
from fastnn.saving import load_model, read_tensors, write_tensors

ARRAYS = {
    "0.dense.kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "0.dense.bias": np.array([0.5, -1.5, 2.5], np.float32),
    "optimizer.m": np.array([[1e-300], [np.pi]], np.float64),
    "classes": np.array([3, 1, 2], np.int32),
    "iterations": np.array(7, np.int64),
    "mask": np.array([1, 0, 255], np.uint8),
    "nothing": np.zeros((0, 4), np.float32),
}
METADATA = {"format": "fastnn", "text": 'quotes " \\ and "sha256":"' + "0" * 64 + '", β'}


def assert_same(read: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(read) == set(expected)
    for name, array in expected.items():
        assert read[name].dtype == array.dtype, name
        assert read[name].shape == array.shape, name
        assert read[name].tobytes() == array.tobytes(), name


def raw_file(path: Path, header: object, data: bytes = b"") -> Path:
    """A file with this header (text, or an object for JSON) and no checksum."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(shape: object, begin: object, end: object, dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# ---------------------------------------------------------------- layout


def test_arrays_and_metadata_come_back_as_they_were(tmp_path):
    path = tmp_path / "file without suffix"
    write_tensors(path, ARRAYS, METADATA)
    tensors, metadata = read_tensors(path)
    assert_same(tensors, ARRAYS)
    assert metadata == METADATA
    assert all(array.flags.writeable and array.flags.c_contiguous for array in tensors.values())


def test_the_safetensors_package_reads_our_files(tmp_path):
    numpy_module = pytest.importorskip("safetensors.numpy")
    from safetensors import safe_open

    path = tmp_path / "ours.safetensors"
    write_tensors(path, ARRAYS, METADATA)
    assert_same(numpy_module.load_file(path), ARRAYS)
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert len(metadata.pop("sha256")) == 64
    assert metadata == METADATA


def test_we_read_files_of_the_safetensors_package(tmp_path):
    numpy_module = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "theirs.safetensors"
    numpy_module.save_file(ARRAYS, path, metadata=METADATA)
    tensors, metadata = read_tensors(path, require_checksum=False)
    assert_same(tensors, ARRAYS)
    assert metadata == METADATA
    with pytest.raises(ValueError, match="no checksum"):
        read_tensors(path)


def test_header_is_padded_and_every_tensor_is_aligned(tmp_path):
    for length in range(1, 18):
        path = tmp_path / "aligned"
        write_tensors(path, ARRAYS, {"padding": "x" * length})
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        assert size % 8 == 0
        header = json.loads(content[8 : 8 + size])
        del header["__metadata__"]
        offsets = [value["data_offsets"] for value in header.values()]
        assert offsets == sorted(offsets)
        for name, value in header.items():
            assert value["data_offsets"][0] % ARRAYS[name].itemsize == 0, name


def test_layouts_of_memory_do_not_change_the_file(tmp_path):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    read_only = base.copy()
    read_only.flags.writeable = False
    variants = [
        np.asfortranarray(base),
        np.repeat(base, 2, axis=1)[:, ::2],
        base[::-1][::-1],
        base.astype(">f4"),
        read_only,
    ]
    write_tensors(tmp_path / "base", {"a": base}, {})
    for array in variants:
        write_tensors(tmp_path / "variant", {"a": array}, {})
        assert (tmp_path / "variant").read_bytes() == (tmp_path / "base").read_bytes()


def test_a_file_without_tensors_is_a_file(tmp_path):
    write_tensors(tmp_path / "empty", {}, {})
    assert read_tensors(tmp_path / "empty") == ({}, {})


def test_the_checksum_is_not_confused_by_a_name_that_looks_like_it(tmp_path):
    metadata = {'a"sha256': "0" * 64, "b": '"sha256":"' + "0" * 64}
    write_tensors(tmp_path / "odd", {'c"sha256': np.zeros(2, np.float32)}, metadata)
    assert read_tensors(tmp_path / "odd")[1] == metadata


@pytest.mark.parametrize(
    ("tensors", "metadata", "error", "message"),
    [
        ({"a": np.zeros(2, bool)}, {}, TypeError, "tensor 'a' must have one of the dtypes .* Received: bool"),
        ({"a": np.zeros(2, np.float16)}, {}, TypeError, "Received: float16"),
        ({"a": np.array([object()])}, {}, TypeError, "Received: object"),
        ({"a": np.zeros((1,) * 9)}, {}, ValueError, "at most 8 axes. Received: 9"),
        ({"": np.zeros(1)}, {}, ValueError, "1 to 256 characters"),
        ({"x" * 257: np.zeros(1)}, {}, ValueError, "1 to 256 characters"),
        ({"__metadata__": np.zeros(1)}, {}, ValueError, "__metadata__"),
        ({1: np.zeros(1)}, {}, TypeError, "must be text. Received: 1"),
        ({}, {"a": 1}, TypeError, "metadata must have text"),
        ({}, {"sha256": ""}, ValueError, "must not contain 'sha256'"),
        ({}, {"a": "x" * 2**24}, ValueError, "at most 16777216 can be stored"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path, tensors, metadata, error, message):
    with pytest.raises(error, match=message):
        write_tensors(tmp_path / "file", tensors, metadata)
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------- damage


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.fnn"
    write_tensors(path, {"w": np.array([1.5, -2.0], np.float32), "n": np.array(3, np.int64)}, {"format": "fastnn"})
    return path


def test_every_truncation_is_rejected_and_named(small):
    for length in reversed(range(small.stat().st_size)):
        os.truncate(small, length)
        with pytest.raises(ValueError, match=r"small\.fnn' is not a usable model file: .+"):
            read_tensors(small)


def test_every_flipped_bit_is_rejected_and_named(small):
    content = small.read_bytes()
    with open(small, "r+b", buffering=0) as file:
        for position, byte in enumerate(content):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), position)
                with pytest.raises(ValueError, match=r"small\.fnn' is not a usable model file: .+"):
                    read_tensors(small)
            os.pwrite(file.fileno(), bytes([byte]), position)
    assert read_tensors(small)[1] == {"format": "fastnn"}


def test_bytes_after_the_end_are_rejected(small):
    small.write_bytes(small.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="the file holds 17"):
        read_tensors(small)


NESTED = b'{"a":' * 100_000
PLAIN = entry([2], 0, 8)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"", 0, "does not begin with '{'"),
        (b' {"__metadata__":{}}', 0, "does not begin with '{'"),
        (b"[]", 0, "does not begin with '{'"),
        (b"{", 0, "not valid JSON"),
        (b'{"\xff":1}', 0, "not valid JSON"),
        (b'{"__metadata__":{"a":"1","a":"1"}}', 0, "the key 'a' is there twice"),
        (b'{"a":1,"a":1}', 0, "the key 'a' is there twice"),
        (b'{"a":NaN}', 0, "NaN is not a finite number"),
        (b'{"a":-Infinity}', 0, "-Infinity is not a finite number"),
        (b'{"a":1e999}', 0, "1e999 is not a finite number"),
        (b'{"a":' + b"9" * 5000 + b"}", 0, "not valid JSON"),
        (NESTED, 0, "nested more than 64 deep"),
        (b'{"a":' + b"[" * 65 + b"]" * 65 + b"}", 0, "nested more than 64 deep"),
        (b'{"a":[' + b"[]," * 500_000 + b"[]]}", 0, "its header has more than 500000 parts"),
        ({"__metadata__": {"a": 1}}, 0, "metadata must be a table of texts"),
        ({"__metadata__": []}, 0, "metadata must be a table of texts"),
        ({"": PLAIN}, 8, "1 to 256 characters"),
        ({"x" * 257: PLAIN}, 8, "1 to 256 characters"),
        ({"a": []}, 0, "must have the keys"),
        ({"a": {**PLAIN, "path": "/etc/passwd"}}, 8, "must have the keys"),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8, "must have the keys"),
        ({"a": entry([2], 0, 8, "F16")}, 8, "dtype of tensor 'a' must be one of .* Received: 'F16'"),
        ({"a": entry([2], 0, 8, ["F32"])}, 8, "dtype of tensor 'a' must be one of"),
        ({"a": entry("2", 0, 8)}, 8, "shape of tensor 'a' must be a list of integers"),
        ({"a": entry([2.0], 0, 8)}, 8, "shape of tensor 'a' must be a list of integers"),
        ({"a": entry([True, 2], 0, 8)}, 8, "shape of tensor 'a' must be a list of integers"),
        ({"a": entry([-1, -2], 0, 8)}, 8, "not negative"),
        ({"a": entry([2**63], 0, 8)}, 8, "list of integers"),
        ({"a": entry([1] * 8 + [2], 0, 8)}, 8, "has 9 axes"),
        ({"a": entry([2], False, 8)}, 8, "data_offsets of tensor 'a' must be a list of integers"),
        ({"a": entry([2], 0.0, 8)}, 8, "data_offsets of tensor 'a' must be a list of integers"),
        ({"a": {**PLAIN, "data_offsets": [0, 4, 8]}}, 8, "must be two integers"),
        ({"a": entry([3], 0, 8)}, 8, r"shape \[3\] does not fill its 8 bytes"),
        ({"a": entry([2], 8, 0)}, 8, "does not fill its -8 bytes"),
        ({"a": entry([2**32, 2**32], 0, 0)}, 0, "does not fill its 0 bytes"),
        ({"a": entry([2**62, 2**62, 0], 0, 0)}, 0, "is too large"),
        ({"a": entry([2**40], 0, 2**42)}, 8, "its tensors take 4398046511104 bytes, but the file holds 8"),
        ({"a": entry([2], 0, 8)}, 12, "the file holds 12"),
        ({"a": PLAIN, "b": entry([2], 4, 12)}, 12, "tensor 'b' begins at byte 4, which overlaps"),
        ({"a": PLAIN, "b": entry([2], 0, 8)}, 8, "begins at byte 0, which overlaps"),
        ({"a": PLAIN, "b": entry([2], 12, 20)}, 20, "leaves a gap"),
        ({"a": entry([2], 4, 12)}, 12, "begins at byte 4, which leaves a gap"),
        ({"__metadata__": {"sha256": "é"}, "a": PLAIN}, 8, "checksum does not match"),
        ({"__metadata__": {"sha256": ""}, "a": PLAIN}, 8, "checksum does not match"),
    ],
)
def test_a_malformed_header_is_rejected_with_its_reason(tmp_path, header, data, message):
    path = raw_file(tmp_path / "bad.fnn", header, bytes(data))
    with pytest.raises(ValueError, match=f"bad.fnn' is not a usable model file: .*{message}"):
        read_tensors(path, require_checksum=False)


def test_the_order_of_tensors_in_the_header_is_free(tmp_path):
    path = raw_file(tmp_path / "file", {"b": entry([1], 8, 12), "a": PLAIN}, np.arange(3, dtype=np.float32).tobytes())
    tensors, _ = read_tensors(path, require_checksum=False)
    assert_same(tensors, {"a": np.array([0, 1], np.float32), "b": np.array([2], np.float32)})


@pytest.mark.parametrize("length", [16 * 2**20 + 1, 2**31, 2**63, 2**64 - 1])
def test_an_announced_header_that_is_too_long_is_rejected(tmp_path, length):
    path = tmp_path / "bad.fnn"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match=f"a header of {length} bytes is announced"):
        read_tensors(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no such file.*nowhere\.fnn"):
        read_tensors(tmp_path / "nowhere.fnn")


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in [tmp_path, tmp_path / "pipe", Path("/dev/zero")]:
        with pytest.raises(ValueError, match="is not a regular file"):
            read_tensors(path)


@pytest.mark.parametrize(
    ("path", "error"), [(3, TypeError), (b"x", TypeError), (None, TypeError), ("", ValueError), ("a\0b", ValueError)]
)
def test_a_path_must_be_a_file_name(path, error):
    with pytest.raises(error, match="path must be"):
        read_tensors(path)
    with pytest.raises(error, match="path must be"):
        write_tensors(path, {}, {})


def test_a_file_that_shrinks_while_it_is_read_is_rejected(small, monkeypatch):
    real = os.fstat

    class Longer:
        def __init__(self, status):
            self.st_mode, self.st_size = status.st_mode, status.st_size

    content = small.read_bytes()

    def cut(handle):
        status = Longer(real(handle))
        os.truncate(small, len(content) - 1)
        return status

    monkeypatch.setattr(tensorfile.os, "fstat", cut)
    with pytest.raises(ValueError, match="cut short while it was read"):
        read_tensors(small)


# ---------------------------------------------------------------- files that hold no model

GOOD = {
    "format": "fastnn",
    "format_version": "1",
    "fastnn_version": "0.1.0",
    "architecture": '{"class":"Sequential","config":{}}',
    "state": "{}",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pt"}, "a safetensors file, but not a fastnn model"),
        ({"format": None}, "a safetensors file, but not a fastnn model"),
        (
            {"format_version": "2", "fastnn_version": "9.1"},
            r"written by a newer fastnn \('9.1', format 2\).*update fastnn",
        ),
        ({"format_version": "2", "future": "x"}, "written by a newer fastnn"),
        ({"format_version": "0"}, "format version must be a small positive integer. Received: '0'"),
        ({"format_version": "1.0"}, "format version must be"),
        ({"format_version": "1" * 5000}, "format version must be"),
        ({"format_version": None}, "format version must be"),
        ({"state": None}, r"its metadata lacks \['state'\]"),
        ({"command": "rm"}, r"unknown metadata \['command'\]"),
        ({"architecture": "[]"}, "its architecture must be a JSON object"),
        ({"architecture": ""}, "its architecture is not valid JSON"),
        ({"architecture": "{}"}, "must have the keys 'class' and 'config'"),
        (
            {"architecture": '{"class":"Sequential","config":{},"module":"os"}'},
            "must have the keys 'class' and 'config'",
        ),
        ({"architecture": '{"class":"A","class":"B","config":{}}'}, "the key 'class' is there twice"),
        ({"architecture": '{"a":' * 1000}, "its architecture"),
        ({"state": '{"a":NaN}'}, "its state is not valid JSON: NaN is not a finite number"),
        ({"state": '{"a":' + "[" * 64 + "]" * 64 + "}"}, "its state is nested more than 64 deep"),
    ],
)
def test_a_file_that_does_not_hold_a_model_is_rejected_with_its_reason(tmp_path, change, message):
    path = tmp_path / "bad.fnn"
    metadata = {name: text for name, text in (GOOD | change).items() if text is not None}
    write_tensors(path, {}, metadata)
    with pytest.raises(ValueError, match=rf"bad\.fnn'.*{message}"):
        load_model(path)


def test_a_model_file_without_a_checksum_is_rejected(tmp_path):
    with pytest.raises(ValueError, match="no checksum"):
        load_model(raw_file(tmp_path / "bad.fnn", {"__metadata__": GOOD}))


# ---------------------------------------------------------------- atomic writing

OLD, NEW = {"w": np.zeros(3, np.float32)}, {"w": np.ones(5, np.float32)}


@pytest.mark.parametrize(
    ("function", "existing"),
    [(function, existing) for function in ["open", "write", "fsync", "replace", "close"] for existing in [True, False]]
    + [("fchmod", True)],
)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, function, existing, number):
    path = tmp_path / "model.fnn"
    if existing:
        write_tensors(path, OLD, {})
    real = getattr(os, function)

    def fail(*args, **kwargs):
        if function == "close":
            real(*args)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(tensorfile.os, function, fail)
        with pytest.raises(OSError, match=r"model\.fnn") as caught:
            write_tensors(path, NEW, {})
    assert caught.value.errno == number
    assert os.listdir(tmp_path) == (["model.fnn"] if existing else [])
    if existing:
        assert_same(read_tensors(path)[0], OLD)


@pytest.mark.parametrize("calls", [0, 1])
def test_ctrl_c_during_a_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, calls):
    path = tmp_path / "model.fnn"
    write_tensors(path, OLD, {})
    left = [calls]
    real = os.write

    def interrupt(file, data):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(tensorfile.os, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_tensors(path, NEW, {})
    assert os.listdir(tmp_path) == ["model.fnn"]
    assert_same(read_tensors(path)[0], OLD)


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(tensorfile.os, "write", lambda file, data: real(file, data[:7]))
    write_tensors(tmp_path / "model.fnn", ARRAYS, METADATA)
    assert_same(read_tensors(tmp_path / "model.fnn")[0], ARRAYS)


def test_file_and_directory_are_flushed_around_the_rename(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(tensorfile.os, "fsync", lambda h: calls.append(stat.S_IFMT(os.fstat(h).st_mode)) or fsync(h))
    monkeypatch.setattr(tensorfile.os, "replace", lambda a, b: calls.append("rename") or replace(a, b))
    write_tensors(tmp_path / "model.fnn", NEW, {})
    assert calls == [stat.S_IFREG, "rename", stat.S_IFDIR]


def test_a_directory_that_cannot_be_flushed_is_an_error_except_where_that_does_not_exist(tmp_path, monkeypatch):
    real = os.fsync
    for number in [errno.EIO, errno.EINVAL]:

        def fail(handle, number=number):
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                raise OSError(number, os.strerror(number))
            real(handle)

        monkeypatch.setattr(tensorfile.os, "fsync", fail)
        path = tmp_path / str(number)
        if number == errno.EIO:
            with pytest.raises(OSError, match=str(tmp_path)):
                write_tensors(path, NEW, {})
        else:
            write_tensors(path, NEW, {})
        assert_same(read_tensors(path)[0], NEW)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"directory does not exist.*no such dir"):
        write_tensors(tmp_path / "no such dir" / "model.fnn", NEW, {})


def test_permissions_are_those_of_the_old_file_or_of_the_umask(tmp_path):
    path = tmp_path / "model.fnn"
    previous = os.umask(0o027)
    try:
        write_tensors(path, OLD, {})
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        write_tensors(path, NEW, {})
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(previous)


def test_a_write_protected_file_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "model.fnn"
    write_tensors(path, OLD, {})
    path.chmod(0o444)
    monkeypatch.setattr(tensorfile.os, "access", lambda *args: False)  # root may write everywhere
    with pytest.raises(PermissionError, match=r"write-protected.*model\.fnn"):
        write_tensors(path, NEW, {})
    assert_same(read_tensors(path)[0], OLD)


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "store").mkdir()
    target, link = tmp_path / "store" / "real.fnn", tmp_path / "latest.fnn"
    link.symlink_to(target)
    for tensors in [OLD, NEW]:  # first dangling, then not
        write_tensors(link, tensors, {})
        assert link.is_symlink()
        assert not target.is_symlink()
        assert_same(read_tensors(link)[0], tensors)
    assert sorted(os.listdir(tmp_path)) == ["latest.fnn", "store"]


def test_what_is_not_a_file_is_not_replaced(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in [tmp_path, loop, Path("/dev/null")]:
        with pytest.raises(ValueError, match="is not a regular file"):
            write_tensors(path, NEW, {})
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.listdir(tmp_path) == ["loop"]


def test_a_relative_name_without_directory_is_written_where_we_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tensors("model", NEW, {})
    assert os.listdir(tmp_path) == ["model"]


def test_classes_that_a_file_may_not_name_are_refused_when_saving(tmp_path):
    class Mine(fastnn.layers.Dense):
        pass

    class MyLoss(fastnn.losses.MeanSquaredError):
        pass

    one = fastnn.Sequential([Mine(1, input_shape=(3,))])
    other = fastnn.Sequential([fastnn.layers.Dense(1, input_shape=(3,))])
    other.compile("sgd", MyLoss())
    for model, name in ((one, "Mine"), (other, "MyLoss")):
        with pytest.raises(ValueError, match=f"was not written.*'{name}'"):
            model.save(tmp_path / "model.fnn")
    assert not list(tmp_path.iterdir())
