"""Images from files: what Pillow's formats become, which files are taken, statistics, storing, and damaged files."""

import json
import logging
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import fastnn
from fastnn.images import ImagePreprocessor
from fastnn.images.files import ImageFile, class_files, image_files
from fastnn.images.job import image_preprocessing
from fastnn.images.network import default_filters
from fastnn.images.reading import BadFiles, has_colour, quiet_pillow, read_header, read_images, read_pixels
from fastnn.jobs import memory
from fastnn.tables.job import table_preprocessing

H, W = 6, 10
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (H, W), np.uint8)
DEEP = RNG.integers(0, 65536, (H, W), np.uint16)
COLOUR = RNG.integers(0, 256, (H, W, 3), np.uint8)
ALPHA = RNG.integers(0, 2, (H, W), np.uint8) * 255


def grey(pixels=GREY):
    return Image.fromarray(pixels)


def written(image, path, **options):
    """The file of an image."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return ImageFile(Path(path))


def pixels(file, channels=1, size=(H, W)):
    """float32 (H, W, C) of a file; NaN where nothing was written."""
    out = np.full((*size, channels), np.nan, np.float32)
    with quiet_pillow():
        read_pixels(file, out)
    return out


def on_white(values):
    return np.where(ALPHA if values.ndim == 2 else ALPHA[..., None], values, 255) / 255


# -------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("name", "image", "options", "expected"),
    [
        ("a.png", grey(), {}, GREY / 255),
        ("a.bmp", grey(), {}, GREY / 255),
        ("a.tif", grey(), {}, GREY / 255),
        ("a.gif", grey(), {"save_all": True, "append_images": [grey(255 - GREY)]}, GREY / 255),
        ("a.png", grey(DEEP), {}, DEEP / 65535),
        ("a.tif", grey(DEEP), {}, DEEP / 65535),
        ("a.tif", Image.frombytes("I;16B", (W, H), DEEP.astype(">u2").tobytes()), {}, DEEP / 65535),
        ("a.tif", grey(DEEP.astype(np.int32)), {}, DEEP / 65535),
        ("a.png", grey(GREY > 99), {}, np.where(GREY > 99, 1.0, 0.0)),
        ("a.png", grey(np.dstack([GREY] * 3)), {}, GREY / 255),
        ("a.png", grey().convert("P"), {}, GREY / 255),
        ("a.png", Image.merge("LA", (grey(), grey(ALPHA))), {}, on_white(GREY)),
        ("a.png", grey(), {"transparency": int(GREY[0, 0])}, np.where(GREY[0, 0] == GREY, 255, GREY) / 255),
        ("a.png", grey().convert("P"), {"transparency": bytes([0] * 99)}, np.where(GREY < 99, 255, GREY) / 255),
        ("a.png", grey(COLOUR), {}, COLOUR / 255),
        ("a.png", grey(np.dstack([COLOUR, ALPHA])), {}, on_white(COLOUR)),
        ("a.bmp", grey(COLOUR), {}, COLOUR / 255),
        ("a.gif", grey(COLOUR // 86 * 86), {}, COLOUR // 86 * 86 / 255),
        ("a.tif", grey(COLOUR), {"compression": "tiff_lzw"}, COLOUR / 255),
        ("a.tif", grey(COLOUR // 255 * 255).convert("CMYK"), {}, COLOUR // 255 * 255 / 255),
    ],
)
def test_each_format_becomes_numbers_from_0_to_1(tmp_path, name, image, options, expected):
    file = written(image, tmp_path / name, **options)
    coloured = expected.ndim == 3
    found = pixels(file, 3 if coloured else 1)
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=1e-7)
    with quiet_pillow():
        header = read_header(file)
        assert (header.height, header.width) == (H, W)
        assert has_colour(file) == coloured
        assert header.may_have_colour >= coloured


def test_grey_images_become_colour_and_colour_ones_grey(tmp_path):
    deep = pixels(written(grey(DEEP), tmp_path / "deep.png"), 3)
    np.testing.assert_allclose(deep, np.dstack([DEEP / 65535] * 3), rtol=0, atol=1e-7)
    found = pixels(written(grey(COLOUR), tmp_path / "colour.png"))[..., 0]
    expected = COLOUR @ [0.299, 0.587, 0.114] / 255
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.51 / 255)


def test_dark_x_rays_of_16_bits_keep_their_shades(tmp_path):
    shades = np.arange(H * W, dtype=np.uint16).reshape(H, W) * 70  # 12 bits, which 8 would make white
    found = pixels(written(grey(shades), tmp_path / "chest.png"))[..., 0]
    np.testing.assert_allclose(found, shades / 65535, rtol=1e-6)
    assert len(np.unique(found)) == H * W
    half = pixels(written(grey(shades), tmp_path / "chest.png"), size=(H // 2, W // 2))[..., 0]
    assert len(np.unique(half)) == H * W // 4
    assert 0 < half.min() < half.max() < shades.max() / 65535


def test_white_may_be_zero_in_16_bit_tiff(tmp_path):
    file = written(grey(DEEP), tmp_path / "a.tif")
    data, entry = file.path.read_bytes(), struct.pack("<HHI", 262, 3, 1)
    assert data.count(entry) == 1
    file.path.write_bytes(data.replace(entry + b"\x01", entry + b"\x00"))
    np.testing.assert_allclose(pixels(file)[..., 0], (65535 - DEEP.astype(int)) / 65535, rtol=0, atol=1e-7)


def test_jpeg_of_cmyk_is_not_inverted(tmp_path):
    halves = np.zeros((32, 32, 3), np.uint8)
    halves[:, :16], halves[:, 16:] = (255, 0, 0), (255, 255, 255)
    file = written(grey(halves).convert("CMYK"), tmp_path / "print.jpg", quality=100)
    np.testing.assert_allclose(pixels(file, 3, (32, 32)), halves / 255, atol=0.02)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, GREY),
        (2, GREY[:, ::-1]),
        (3, GREY[::-1, ::-1]),
        (4, GREY[::-1]),
        (5, GREY.T),
        (6, np.rot90(GREY, -1)),
        (7, GREY[::-1, ::-1].T),
        (8, np.rot90(GREY)),
    ],
)
def test_images_are_turned_as_their_exif_data_say(tmp_path, name, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = written(grey(), tmp_path / name, exif=exif, **({"quality": 100} if name == "a.jpg" else {}))
    with quiet_pillow():
        header = read_header(file)
    assert (header.height, header.width) == upright.shape
    np.testing.assert_allclose(pixels(file, size=upright.shape)[..., 0], upright / 255, atol=1.01 / 255)


def test_exif_data_that_make_no_sense_do_not_matter(tmp_path):
    file = written(grey(), tmp_path / "a.jpg", quality=100, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    other = written(grey(), tmp_path / "b.jpg", quality=100, exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(pixels(file), pixels(other))
    with quiet_pillow():
        assert read_header(other).height == H


def test_resizing_uses_all_pixels(tmp_path):
    stripes = np.tile(np.array([[0, 255]], np.uint8), (40, 20))
    found = pixels(written(grey(stripes), tmp_path / "a.png"), size=(4, 4))
    np.testing.assert_allclose(found, 0.5, atol=0.02)  # single pixels would give 0 or 1
    assert pixels(written(grey(), tmp_path / "b.png"), size=(31, 7)).shape == (31, 7, 1)


# -------------------------------------------------------------------- damaged files


def png(width, height):
    """A PNG file that says it has such a size, and has no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pieces = [header, b"IDAT" + zlib.compress(b""), b"IEND"]
    chunks = [struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in pieces]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def good_png(tmp_path):
    return written(grey(), tmp_path / "good.png").path.read_bytes()


BAD = {
    "empty": (lambda good: b"", "is empty"),
    "text": (lambda good: b"age,ill\n1,yes\n" * 9, "is not a PNG, JPEG, BMP, TIFF or GIF image"),
    "zeros": (lambda good: bytes(999), "is not a PNG"),
    "a header alone": (lambda good: good[:8], "is not a PNG"),
    "truncated": (lambda good: good[:-30], "truncated|broken"),
    "a wrong checksum": (lambda good: good.replace(b"IDAT", b"IDAT\xff", 1), "cannot be read|damaged"),
    "a bomb": (lambda good: png(50_000, 50_000), "has more than 89 million pixels, Pillow's limit against bombs"),
    "half a bomb": (lambda good: png(10_000, 10_000), "has more than 89 million pixels"),
    "no pixels": (lambda good: png(30, 30), "truncated|broken|cannot be read"),
    "no height": (lambda good: png(30, 0), "is not a PNG|damaged|cannot be read"),
    "another format": (lambda good: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a PNG"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_named_with_the_reason(tmp_path, name):
    make, message = BAD[name]
    path = tmp_path / "x ray é.png"
    path.write_bytes(make(good_png(tmp_path)))
    with pytest.raises(ValueError, match=message) as error:
        read_images([ImageFile(path)], (H, W, 1), BadFiles(skip=False))
    assert str(error.value).startswith(f"{path}: ")
    assert "(--skip-bad leaves such files out)" in str(error.value)


def test_damaged_files_can_be_left_out_and_are_counted(tmp_path, caplog):
    files = [written(grey(), tmp_path / f"{k}.png") for k in "abcde"]
    files[1].path.write_bytes(b"")
    files[3].path.write_bytes(b"nonsense")
    bad = BadFiles(skip=True)
    x, read = read_images(files, (H, W, 1), bad)
    assert read == [files[0], files[2], files[4]]
    assert x.shape == (3, H, W, 1)
    np.testing.assert_array_equal(x, np.stack([pixels(files[0])] * 3))
    bad.report()
    assert f"left out 2 files that cannot be read, the first: {files[1]}: is empty" in caplog.text


def test_numbers_that_are_no_shades_are_refused(tmp_path):
    large = written(grey(DEEP.astype(np.int32) * 9), tmp_path / "large.tif")
    with pytest.raises(ValueError, match=r"holds values from .* save it with 16 bits, 0 to 65535"):
        pixels(large)
    real = written(grey(DEEP.astype(np.float32)), tmp_path / "real.tif")
    with pytest.raises(ValueError, match="holds floating-point numbers; save it with 8 or 16 bits"):
        pixels(real)


def test_what_is_not_a_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="is not a file"):
        pixels(ImageFile(tmp_path / "pipe.png"))
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        pixels(ImageFile(tmp_path / "gone.png"))
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    with pytest.raises(ValueError, match=r"cannot be read: .*symbolic links"):
        pixels(ImageFile(tmp_path / "itself.png"))


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    file = written(grey(), tmp_path / "secret.png")

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(file.path))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ValueError, match=r"secret\.png: cannot be read: Permission denied"):
        read_images([file], (H, W, 1), BadFiles(skip=False))


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(ValueError, match=r"the folder .* cannot be read: Permission denied"):
        class_files(tmp_path)


def test_pillows_own_remarks_are_not_passed_on(tmp_path, caplog):
    level = logging.getLogger("PIL").level
    image = grey().convert("P")
    pixels(written(image, tmp_path / "a.png", transparency=bytes([0, 255] * 128)), 3)
    assert not caplog.records
    assert logging.getLogger("PIL").level == level


# -------------------------------------------------------------------- folders


def folders(root, *names):
    for name in names:
        written(grey(), root / name)
    return root


def names(files, root):
    return [(file.label, file.path.relative_to(root).as_posix()) for file in files]


def test_files_come_in_the_order_of_their_names(tmp_path, monkeypatch):
    root = folders(tmp_path, "b/2.png", "b/10.png", "a/z/1.JPG", "a/x.tiff", "a/B.gif", "a/y/q.bmp", "ä/1.jpeg")
    expected = [
        ("a", "a/B.gif"),
        ("a", "a/x.tiff"),
        ("a", "a/y/q.bmp"),
        ("a", "a/z/1.JPG"),
        ("b", "b/10.png"),
        ("b", "b/2.png"),
        ("ä", "ä/1.jpeg"),
    ]
    assert names(class_files(root), root) == expected
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listdir(path)[::-1])
    assert names(class_files(root), root) == expected
    assert names(image_files([root]), root) == [("", path) for _, path in expected]


def test_what_is_passed_over_is_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = folders(tmp_path, "a/1.png", "b/1.png", "a/.1.png", ".cache/1.png", "stray.png")
    (root / "notes.txt").write_text("")
    (root / "a" / "Thumbs.db").write_text("")
    assert names(class_files(root), root) == [("a", "a/1.png"), ("b", "b/1.png")]
    assert f"ignored 2 files that are no images: '{root}/notes.txt', '{root}/a/Thumbs.db'" in caplog.text
    assert "ignored 2 hidden files: " in caplog.text
    assert f"ignored 1 image in no class folder: '{root}/stray.png'" in caplog.text


def test_links_are_followed_but_not_in_circles(tmp_path, caplog):
    root = folders(tmp_path / "root", "a/1.png", "b/1.png")
    folders(tmp_path, "elsewhere/2.png")
    (root / "a" / "round").symlink_to(root)
    (root / "b" / "self").symlink_to(root / "b")
    (root / "b" / "there").symlink_to(tmp_path / "elsewhere")
    found = names(class_files(root), root)
    assert found == [("a", "a/1.png"), ("a", "a/round/b/1.png"), ("a", "a/round/b/there/2.png")] + [
        ("b", "b/1.png"),
        ("b", "b/there/2.png"),
    ]
    assert f"'{root}/b/self'" in caplog.text
    assert "ignored links that lead back to a folder they are in" in caplog.text


def test_names_in_two_unicode_forms_are_one_class(tmp_path):
    root = folders(tmp_path, "e\u0301/1.png", "f/1.png")
    assert [file.label for file in class_files(root)] == ["f", "\u00e9"]
    folders(root, "\u00e9/1.png")
    with pytest.raises(ValueError, match="are the same class"):
        class_files(root)


def test_names_that_are_no_text_can_be_told(tmp_path):
    root = folders(tmp_path, "a/1.png", "b/1.png")
    os.rename(os.fsencode(root / "a" / "1.png"), os.fsencode(root / "a") + b"/\xff.png")
    assert str(class_files(root)[0]) == f"{root}/a/\\udcff.png"
    os.rename(os.fsencode(root / "b"), os.fsencode(root) + b"/\xfe")
    with pytest.raises(ValueError, match=r"class folder .*\\udcfe is not valid UTF-8"):
        class_files(root)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([], "there is no folder "),
        (["1.png", "2.png"], "has no folders of classes; images belong in .*/<class>/"),
        (["a/1.png", "a/2.png"], "has one class only, 'a': there is nothing to learn"),
        (["a/1.png", "b/.1.png"], r"the class folder .*b holds no images \(.png, .jpg"),
        (["train/a/1.png", "Test/a/1.png"], "the folders 'Test', 'train' are parts of a split, not classes; give one"),
    ],
)
def test_folders_without_two_classes_of_images_are_refused(tmp_path, made, message):
    root = folders(tmp_path / "root", *made)
    with pytest.raises(ValueError, match=message):
        class_files(root)


def test_files_and_folders_to_predict_must_be_there(tmp_path):
    root = folders(tmp_path, "a/1.png", "b/c/2.png")
    (root / "empty").mkdir()
    assert names(image_files([root / "b", root / "a" / "1.png"]), root) == [("", "b/c/2.png"), ("", "a/1.png")]
    with pytest.raises(ValueError, match=r"there is no file or folder .*x\.png"):
        image_files([root / "x.png"])
    with pytest.raises(ValueError, match=r"the folder .*empty holds no images"):
        image_files([root / "empty"])


# -------------------------------------------------------------------- what is learnt and stored


@pytest.mark.parametrize("channels", [1, 3])
def test_each_channel_is_normalized_with_the_training_images(channels):
    rng = np.random.default_rng(1)
    x = rng.random((70, 3, 5, channels), np.float32) * np.float32(0.5)
    pre = ImagePreprocessor(size=(3, 5), color={1: "grey", 3: "rgb"}[channels])
    pre.learn_statistics(x)
    flat = x.reshape(-1, channels).astype(np.float64)
    np.testing.assert_allclose(pre.mean, flat.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(pre.scale, flat.std(axis=0), rtol=1e-12)
    expected = (flat - flat.mean(axis=0)) / flat.std(axis=0)
    pre.normalize(x)
    np.testing.assert_allclose(x.reshape(-1, channels), expected, rtol=1e-5, atol=1e-6)


def test_blank_images_get_deviation_one():
    pre = ImagePreprocessor(size=(2, 2), color="grey")
    x = np.ones((3, 2, 2, 1), np.float32)
    pre.learn_statistics(x)
    pre.normalize(x)
    assert (pre.mean, pre.scale) == ((1.0,), (1.0,))
    assert not x.any()


def learnt(color="rgb", classes=("a", "b", "c")):
    pre = ImagePreprocessor(size=(3, 5), color=color)
    pre.learn_classes(classes, None, "here")
    pre.learn_statistics(np.random.default_rng(2).random((4, *pre.input_shape), np.float32))
    return pre


@pytest.mark.parametrize("pre", [learnt(), learnt("grey", ("no", "yes"))])
def test_a_stored_preprocessor_does_the_same_bit_for_bit(pre):
    again = ImagePreprocessor.from_config(json.loads(json.dumps(pre.to_config(), allow_nan=False)))
    assert again.to_config() == pre.to_config()
    assert (again.kind, again.outputs, again.input_shape) == (pre.kind, pre.outputs, pre.input_shape)
    x = np.random.default_rng(3).random((4, *pre.input_shape), np.float32)
    y = x.copy()
    pre.normalize(x)
    again.normalize(y)
    assert x.tobytes() == y.tobytes()


def edited(**fields):
    config = {**learnt().to_config(), **fields}
    return {name: value for name, value in config.items() if value is not ...}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "preprocessing must be an object"),
        (edited(data="table"), "data must be one of images"),
        (edited(format=2), "format must be 1 .* Received: 2"),
        (edited(classes=["a"]), "classes must be two or more"),
        (edited(classes=["a", "a"]), "classes must not hold a string twice"),
        (edited(size=[3]), "size must be a list of length 2"),
        (edited(size=[3, 0]), "size must hold numbers above zero"),
        (edited(size=[3, 1.5]), "size must be whole numbers"),
        (edited(size=[3, 10**400]), "size must hold finite numbers"),
        (edited(size=[3, 10**9]), "size must be at most 16384 a side"),
        (edited(color="blue"), "color must be one of grey, rgb"),
        (edited(color="grey"), "mean must be a list of length 1"),
        (edited(mean=...), "mean must be a list of length 3. Received: nothing"),
        (edited(mean=[0, 0, 2]), "mean must hold numbers from 0 to 1"),
        (edited(scale=[1, 1, 0]), "scale must hold numbers from 1e-06 to 1"),
        (edited(scale=[1, 1, "1"]), "scale must hold finite numbers"),
        (edited(extra=1), "unknown field 'extra'"),
    ],
)
def test_stored_preprocessing_is_checked(config, message):
    with pytest.raises(ValueError, match=message):
        ImagePreprocessor.from_config(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 3)}, "size must be a positive integer. Received: size=0"),
        ({"size": (3,)}, r"size must be \(height, width\)"),
        ({"size": (3, 99999)}, "size must be at most 16384 a side"),
        ({"color": "gray"}, "color must be one of grey, rgb. Received: 'gray'"),
    ],
)
def test_options_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=f"ImagePreprocessor: {message}"):
        ImagePreprocessor(**{"size": (3, 5), "color": "rgb", **options})


def test_nothing_can_be_normalized_before_it_is_learnt():
    with pytest.raises(ValueError, match="nothing was learnt yet"):
        ImagePreprocessor(size=(3, 5), color="rgb").normalize(np.zeros((1, 3, 5, 3), np.float32))


def test_a_model_takes_the_data_of_its_own_preprocessing():
    model = fastnn.Sequential([fastnn.layers.Flatten(input_shape=(3, 5, 3)), fastnn.layers.Dense(3)])
    with pytest.raises(ValueError, match="the model holds no preprocessing, so it cannot take images"):
        image_preprocessing(model)
    model.preprocessing = learnt()
    assert image_preprocessing(model) is model.preprocessing
    with pytest.raises(ValueError, match="the model's preprocessing does not take raw rows"):
        table_preprocessing(model)
    with pytest.raises(ValueError, match="the model's preprocessing does not take tables"):
        model.predict(pd.DataFrame({"x": [1.0]}))
    model.preprocessing = learnt("grey")
    with pytest.raises(
        ValueError, match=r"takes \(3, 5, 3\) and .* its preprocessing makes \(3, 5, 1\)"
    ):
        image_preprocessing(model)


# -------------------------------------------------------------------- the network and its memory


@pytest.mark.parametrize(
    ("size", "filters"),
    [
        ((1, 1), (16,)),
        ((8, 8), (16, 32)),
        ((28, 28), (16, 32, 64)),
        ((64, 64), (16, 32, 64, 128, 128)),
        ((64, 9), (16, 32)),
        ((224, 224), (16, 32, 64, 128, 128, 128)),
    ],
)
def test_larger_images_get_more_blocks(size, filters):
    assert default_filters(size) == filters


def test_what_cannot_fit_is_refused_with_figures(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 5 * 10**9)
    memory.require_memory(4.9e9, "9 images", "less helps")
    with pytest.raises(ValueError, match=r"9 images need 12\.5 GB of memory, but there are only 5\.0 GB: less helps"):
        memory.require_memory(1.25e10, "9 images", "less helps")


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    (tmp_path / "limit").write_text("1000000\n")
    (tmp_path / "none").write_text("max\n")
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:  5000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", str(tmp_path / "meminfo"))
    monkeypatch.setattr(memory, "LIMITS", (str(tmp_path / "none"), str(tmp_path / "nothing")))
    assert memory.available_memory() == 5000 * 1024
    monkeypatch.setattr(memory, "LIMITS", (str(tmp_path / "limit"),))
    assert memory.available_memory() == 1000000
    monkeypatch.setattr(memory, "MEMINFO", str(tmp_path / "nothing"))
    assert memory.available_memory() == 1000000
