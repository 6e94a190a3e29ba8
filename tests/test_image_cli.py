"""The command line on images: from folders to files, predictions from raw files, and each kind of bad input."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastnn
from fastnn import cli
from fastnn.jobs import memory
from fastnn.jobs.training import RUN_FILES

FAST = ["--images", "--epochs", "2", "--layers", "4", "--no-augment", "--quiet"]
#: Two classes, one of them positive.
TWO = ("healthy", "ill")


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(capsys, *arguments):
    """Exit code, standard output and standard error of ``fastnn ARGUMENTS``."""
    capsys.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    return (code, *capsys.readouterr())


def refused(capsys, *arguments):
    """The one line of an error that exits with 2 and writes nothing, neither to standard output nor to files."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    code, out, err = run(capsys, *arguments)
    lines = [line for line in err.splitlines() if ": error: " in line]
    assert (code, out) == (2, "")
    assert len(lines) == 1, err
    assert err.splitlines()[-1] == lines[0]
    assert "Traceback" not in err
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert not list(Path().glob(".fastnn-*"))
    return lines[0]


def stripes(kind, rng, size=(12, 12), channels=1):
    """Noise with lines across (class 0), upright (1) or slanting (2), uint8 (H, W) or (H, W, 3)."""
    row, column = np.indices(size)
    phase = (row, column, row + column)[kind]
    lines = 90 * (phase // 2 % 2) + rng.integers(0, 90, size)
    pixels = lines if channels == 1 else np.dstack([lines, lines // 2, 200 - lines])
    return Image.fromarray(pixels.astype(np.uint8))


def make(root="scans", classes=TWO, count=20, **shape):
    """``root/class/00.png`` ..., so many of each class."""
    rng = np.random.default_rng(0)
    for kind, name in enumerate(classes):
        (Path(root) / name).mkdir(parents=True)
        for i in range(count):
            stripes(kind, rng, **shape).save(Path(root) / name / f"p{i // 2:02d}_{i:02d}.png")
    return root


@pytest.fixture
def scans():
    return make()


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """A model file of the scans."""
    home = tmp_path_factory.mktemp("model")
    assert cli.main(["train", make(f"{home}/scans"), "--out", f"{home}/run", *FAST]) == 0
    return home / "run" / "model.fnn"


@pytest.fixture
def model(trained_once, scans):
    """A copy of it beside the scans."""
    Path("run").mkdir()
    shutil.copy(trained_once, "run")
    return "run/model.fnn"


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


# -------------------------------------------------------------------- the main job


def test_folders_of_images_become_four_files_and_a_good_model(capsys):
    make("scans", ("across", "upright", "slanting"), count=30, size=(16, 16), channels=3)
    options = ["--images", "--epochs", "25", "--learning-rate", "0.01", "--seed", "1"]
    code, out, err = run(capsys, "train", "scans", *options)
    assert code == 0, err
    assert "90 images: 'across' 30, 'slanting' 30, 'upright' 30" in err
    assert "p00_00.png has colour: all are read in colour" in err
    assert "On 18 held-out images:" in out
    assert "Epoch" in out
    assert sorted(path.name for path in Path("fastnn-run").iterdir()) == sorted(RUN_FILES)
    assert not list(Path().glob(".fastnn-*"))
    found = json.loads(Path("fastnn-run/metrics.json").read_text())
    assert found["images"] == {"found": 90, "skipped": 0, "train": 57, "validation": 15, "test": 18}
    assert (found["size"], found["color"], found["kind"]) == ([16, 16], "rgb", "multiclass")
    assert found["classes"] == ["across", "slanting", "upright"]
    assert found["test"]["accuracy"] > 0.8
    assert np.sum(found["test"]["confusion_matrix"]) == 18
    assert np.sum(found["test"]["confusion_matrix"], axis=1).tolist() == [6, 6, 6]
    assert Path("fastnn-run/learning_curve.png").read_bytes().startswith(b"\x89PNG")
    history = Path("fastnn-run/history.csv").read_text().splitlines()
    assert history[0] == "epoch,loss,accuracy,val_loss,val_accuracy"
    assert len(history) == found["epochs"] + 1


def test_train_predict_and_evaluate_agree_on_raw_files(capsys, scans, model):
    found = json.loads(run(capsys, "evaluate", model, scans, "--json")[1])
    code, out, err = run(capsys, "predict", model, scans)
    assert (code, err) == (0, "")
    rows = table(out)
    assert list(rows[0]) == ["file", "prediction", "probability_ill"]
    assert [row["file"] for row in rows] == sorted(str(path) for path in Path(scans).rglob("*.png"))
    assert found["images"] == len(rows) == 40
    right = [row["prediction"] == Path(row["file"]).parent.name for row in rows]
    assert found["accuracy"] == pytest.approx(np.mean(right))
    code, out, _ = run(capsys, "evaluate", model, scans, "--threshold", "0.25")
    assert "On 40 images (positive class: ill, threshold 0.25):" in out
    predicted = table(run(capsys, "predict", model, scans, "--threshold", "0.25")[1])
    assert all((row["prediction"] == "ill") == (float(row["probability_ill"]) > 0.25) for row in predicted)


def test_the_results_of_training_are_those_of_evaluation(capsys, scans):
    code, out, _ = run(capsys, "train", scans, *FAST[:-1], "--json", "--seed", "3")
    trained = json.loads(out)
    assert code == 0
    assert trained["data"] == "scans"
    assert trained["positive"] == "ill"
    found = json.loads(run(capsys, "evaluate", "fastnn-run/model.fnn", scans, "--json")[1])
    parts = ("train", "validation", "test")
    total = np.sum([trained[part]["confusion_matrix"] for part in parts], axis=0)
    assert found["confusion_matrix"] == total.tolist()


def test_the_same_seed_gives_the_same_files_whatever_the_file_system_says(capsys, scans, monkeypatch):
    listdir = os.listdir
    for seed, out, order in ((3, "one", 1), (3, "two", -1), (4, "three", 1)):
        monkeypatch.setattr(os, "listdir", lambda path, order=order: listdir(path)[::order])
        assert run(capsys, "train", scans, "--seed", seed, "--out", out, *FAST[:3], "--quiet")[0] == 0
    histories = [Path(out, "history.csv").read_text() for out in ("one", "two", "three")]
    assert histories[0] == histories[1] != histories[2]
    predictions = [run(capsys, "predict", f"{out}/model.fnn", scans)[1] for out in ("one", "two")]
    assert predictions[0] == predictions[1]
    weights = [fastnn.load_model(f"{out}/model.fnn").get_weights() for out in ("one", "two")]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*weights, strict=True))


def test_single_files_are_predicted_as_they_are_in_a_folder(capsys, scans, model):
    every = {row["file"]: row for row in table(run(capsys, "predict", model, scans)[1])}
    files = ["scans/ill/p03_06.png", "scans/healthy/p00_00.png"]
    assert table(run(capsys, "predict", model, *files)[1]) == [every[file] for file in files]
    code, out, _ = run(capsys, "predict", model, files[0], "scans/healthy", "--json", "-o", "out.json")
    assert (code, out) == (0, "")
    records = json.loads(Path("out.json").read_text())
    assert len(records) == 21
    assert records[0]["probability_ill"] == float(every[files[0]]["probability_ill"])


def test_several_classes_give_a_probability_each(capsys):
    make("scans", ("a", "b", "c"))
    assert run(capsys, "train", "scans", *FAST, "--class-weight", "balanced")[0] == 0
    rows = table(run(capsys, "predict", "fastnn-run/model.fnn", "scans")[1])
    names = ["probability_a", "probability_b", "probability_c"]
    assert list(rows[0]) == ["file", "prediction", *names]
    shares = np.array([[float(row[name]) for name in names] for row in rows])
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-6)
    assert [row["prediction"] for row in rows] == ["abc"[k] for k in shares.argmax(axis=1)]
    assert "recall, macro" in run(capsys, "evaluate", "fastnn-run/model.fnn", "scans")[1]


def test_info_describes_the_model_and_its_preprocessing(capsys, model):
    code, out, _ = run(capsys, "info", model)
    assert code == 0
    assert "images: two classes; 'ill' is the positive one, 'healthy' the other" in out
    assert "resized to 12 x 12 pixels (height x width), grey" in out
    assert "grey   mean 0." in out
    found = json.loads(run(capsys, "info", model, "--json")[1])
    assert found["input_shape"] == [None, 12, 12, 1]
    assert found["output_shape"] == [None, 1]
    assert found["preprocessing"]["classes"] == ["healthy", "ill"]


def test_network_options_are_used(capsys, scans):
    options = ["--layers", "3,5", "--activation", "tanh", "--dropout", "0.1", "--batch-size", "16", "--epochs", "2"]
    options += ["--optimizer", "sgd", "--validation-size", "0", "--test-size", "0.25", "--threads", "1"]
    options += ["--positive", "healthy", "--flip", "both", "--augment", "--size", "10x8", "--color", "rgb"]
    code, out, err = run(capsys, "train", scans, "--images", *options, "--json")
    found = json.loads(out)
    assert code == 0, err
    assert found["images"] == {"found": 40, "skipped": 0, "train": 30, "test": 10}
    assert "validation" not in found
    assert found["positive"] == "healthy"
    assert found["size"] == [10, 8]
    assert found["parameters"] == 27 * 3 + 12 + 27 * 5 + 20 + 5 + 1
    layers = fastnn.load_model("fastnn-run/model.fnn").layers
    names = [type(layer).__name__ for layer in layers]
    assert names[:4] == ["RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation"]
    assert names[-3:] == ["GlobalAveragePooling2D", "Dropout", "Dense"]


def test_images_are_augmented_unless_tiny_or_told_not_to(capsys):
    def augmented(*options):
        assert run(capsys, "train", "scans", "--images", "--epochs", "1", "--layers", "2", "--quiet", *options)[0] == 0
        layers = fastnn.load_model("fastnn-run/model.fnn").layers
        return [type(layer).__name__ for layer in layers if type(layer).__name__.startswith("Random")]

    make(size=(16, 20))
    assert augmented() == ["RandomRotation", "RandomZoom", "RandomTranslation"]
    assert augmented("--no-augment") == []
    assert augmented("--size", "15") == []
    assert augmented("--flip", "horizontal", "--no-augment") == ["RandomFlip"]


def test_early_stopping_ends_at_the_best_epoch(capsys, scans):
    options = ["--patience", "2", "--epochs", "500", "--learning-rate", "0.05", "--json", "--layers", "4"]
    found = json.loads(run(capsys, "train", scans, "--images", *options)[1])
    assert found["epochs"] == found["best_epoch"] + 2 < 500


def test_images_of_a_patient_stay_on_one_side(capsys, scans):
    code, out, err = run(capsys, "train", scans, *FAST[:-1], "--json", "--group", "(p[0-9]+)_")
    found = json.loads(out)
    assert code == 0
    assert "10 groups" in err  # in both classes: a patient may have become ill
    assert all(found["images"][part] % 4 == 0 for part in ("train", "validation", "test"))
    assert "is not found in scans/healthy/p00_00.png" in refused(capsys, "train", scans, *FAST, "--group", "q[0-9]+")
    assert "'(' is not a regular expression" in refused(capsys, "train", scans, *FAST, "--group", "(")


# -------------------------------------------------------------------- size and colour


def trained(capsys, *options):
    """The metrics and the remarks of a short training on the scans."""
    code, out, err = run(capsys, "train", "scans", *FAST[:-1], "--json", *options)
    assert code == 0, err
    return json.loads(out), err


def test_images_of_one_small_size_keep_it(capsys):
    make(size=(9, 14))
    found, err = trained(capsys)
    assert found["size"] == [9, 14]
    assert "resized" not in err


def test_images_of_mixed_sizes_are_resized_and_it_is_said(capsys, scans):
    stripes(0, np.random.default_rng(1), size=(30, 20)).save("scans/ill/large.png")
    found, err = trained(capsys)
    assert found["size"] == [64, 64]
    told = "the images are of 2 sizes, from 12 to 30 pixels high and from 12 to 20 wide: resized to 64x64"
    assert f"{told} (choose with --size HxW)" in err
    found, err = trained(capsys, "--size", "7x9")
    assert found["size"] == [7, 9]
    assert "resized" not in err


def test_large_images_are_resized_and_it_is_said(capsys):
    make(size=(129, 20))
    found, err = trained(capsys)
    assert found["size"] == [64, 64]
    assert "the images are of 129x20 pixels: resized to 64x64 (choose with --size HxW)" in err


def test_grey_images_stored_as_colour_are_grey(capsys, scans):
    for path in Path("scans").rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    found, err = trained(capsys)
    assert found["color"] == "grey"
    assert "no image has colour: read as grey" in err
    Image.new("RGB", (12, 12), (255, 0, 0)).save("scans/ill/red.png")
    found, err = trained(capsys)
    assert found["color"] == "rgb"
    assert "scans/ill/red.png has colour: all are read in colour (--color grey does without)" in err
    assert trained(capsys, "--color", "grey")[0]["color"] == "grey"


# -------------------------------------------------------------------- bad files


def spoil(name, data=b"\x89PNG\r\n\x1a\n nonsense"):
    Path("scans", name).write_bytes(data)


def truncated():
    data = Path("scans/ill/p00_00.png").read_bytes()
    return data[: len(data) - 40]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"age,ill\n1,yes\n", "is not a PNG, JPEG, BMP, TIFF or GIF image"),
        (None, "cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_a_bad_file_is_one_line_unless_it_is_to_be_left_out(capsys, scans, model, data, message, command):
    spoil("ill/bad one.png", truncated() if data is None else data)
    arguments = [command, scans, *FAST] if command == "train" else [command, model, scans]
    line = refused(capsys, *arguments)
    assert line.startswith(f"fastnn {command}: error: scans/ill/bad one.png: ")
    assert message in line
    assert line.endswith("(--skip-bad leaves such files out)")
    arguments = ["train", scans, *FAST[:-1]] if command == "train" else arguments
    code, out, err = run(capsys, *arguments, "--skip-bad", "--json")
    assert code == 0, err
    assert "warning: left out 1 file that cannot be read, the first: scans/ill/bad one.png: " in err
    found = json.loads(out)
    if command == "predict":
        assert len(found) == 40
    elif command == "evaluate":
        assert (found["images"], found["skipped"]) == (40, 1)
    else:
        assert (found["images"]["found"], found["images"]["skipped"]) == (41, 1)
        assert sum(found["images"][part] for part in ("train", "validation", "test")) == 40


def test_a_bad_file_given_by_name_is_one_line(capsys, model):
    Path("notes.txt").write_text("not an image")
    assert "notes.txt: is not a PNG" in refused(capsys, "predict", model, "notes.txt")
    assert "none of the 1 image can be read" in refused(capsys, "predict", model, "notes.txt", "--skip-bad")
    assert "there is no file or folder gone.png" in refused(capsys, "predict", model, "gone.png")


def test_a_class_of_bad_files_alone_is_refused(capsys, scans):
    for path in Path("scans/ill").iterdir():
        path.write_bytes(truncated() if path.name != "p00_00.png" else b"")
    Path("scans/ill/p00_00.png").write_bytes(b"")
    assert "no image of class 'ill' is left to train on" in refused(capsys, "train", scans, *FAST, "--skip-bad")
    for path in Path("scans/ill").iterdir():
        path.write_bytes(b"")
    assert "no image of class 'ill' is left to train on" in refused(capsys, "train", scans, *FAST, "--skip-bad")


def test_nobody_is_left_when_every_file_is_bad(capsys, scans, model):
    for path in Path("scans").rglob("*.png"):
        path.write_bytes(b"")
    for arguments in (["train", scans, *FAST], ["predict", model, scans], ["evaluate", model, scans]):
        assert "none of the 40 images can be read" in refused(capsys, *arguments, "--skip-bad")


def test_a_decompression_bomb_is_one_line(capsys, scans, model, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    Image.new("L", (15, 15)).save("scans/ill/bomb.png")
    Image.new("L", (50, 50)).save("bomb.png")
    assert "scans/ill/bomb.png: has more than 0 million pixels" in refused(capsys, "train", scans, *FAST)
    assert "bomb.png: has more than" in refused(capsys, "predict", model, "bomb.png")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda: make("scans", ("ill",)), "scans has one class only, 'ill'"),
        (lambda: make("scans", TWO, count=1), "cannot split a test part off 2 images: a class has 1 image only"),
        (lambda: make("scans", TWO, count=3), "cannot split a validation part off 4 images: "),
        (lambda: (make(), Path("scans/none").mkdir()), "the class folder scans/none holds no images (.png, "),
        (lambda: make("scans", ("test", "train")), "are parts of a split, not classes"),
        (lambda: Path("scans").mkdir(), "scans has no folders of classes"),
        (lambda: Path("scans").write_text("a,b\n"), "scans is a file, not a folder of images"),
        (lambda: None, "there is no folder scans"),
    ],
)
def test_folders_that_cannot_be_learnt_from_are_one_line(capsys, prepare, message):
    prepare()
    assert message in refused(capsys, "train", "scans", *FAST)
    assert not Path("fastnn-run").exists()


def test_folders_that_are_no_class_of_the_model_are_one_line(capsys, model):
    make("others", ("healthy", "Ill"), count=1)
    line = refused(capsys, "evaluate", model, "others")
    assert "the folder 'Ill' in others is none of the model's classes (did you mean 'ill'?)" in line


def test_one_class_can_be_evaluated(capsys, model):
    make("others", ("ill",), count=3)
    found = json.loads(run(capsys, "evaluate", model, "others", "--json")[1])
    assert found["images"] == 3
    assert found["specificity"] is None


def test_what_does_not_fit_in_memory_is_refused_before_it_is_read(capsys, scans, monkeypatch):
    line = refused(capsys, "train", scans, *FAST, "--size", "16384")
    assert "40 images of 16384x16384 pixels, 1 channel, need " in line
    assert " GB of memory, but there are only " in line
    assert "a smaller --size helps" in line
    monkeypatch.setattr(memory, "available_memory", lambda: 100_000)  # the images take 29 kB
    line = refused(capsys, "train", scans, *FAST, "--batch-size", "32")
    assert "40 images of 12x12 pixels, 1 channel, and their network need " in line


# -------------------------------------------------------------------- bad options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "0x5"], "argument --size: must be two whole numbers from 1 to 16384, such as 64x48"),
        (["--size", "64x"], "argument --size: must be two whole numbers"),
        (["--size", "99999"], "Received: '99999'"),
        (["--color", "blue"], "argument --color: invalid choice"),
        (["--flip", "sideways"], "argument --flip: invalid choice"),
        (["--positive", "Ill"], "the positive class 'Ill' is not in the folder scans (did you mean 'ill'?)"),
        (["--activation", "rulu"], "rulu"),
        (["--target", "ill"], "--target has no meaning with --images"),
        (["--na", "?"], "--na has no meaning with --images"),
        (["--out", "scans/ill/p00_00.png"], "the output directory scans/ill/p00_00.png is a file"),
        (["--optimizer", "sgd", "--learning-rate", "1e30"], "the loss became "),
    ],
)
def test_bad_options_are_one_line(capsys, scans, options, message):
    assert message in refused(capsys, "train", scans, *FAST, *options)


def test_options_of_images_need_images(capsys, scans):
    Path("a.csv").write_text("x,ill\n1,yes\n")
    assert "--size needs --images" in refused(capsys, "train", "a.csv", "--target", "ill", "--size", "9")
    assert "--augment needs --images" in refused(capsys, "train", "a.csv", "--target", "ill", "--no-augment")
    assert "a folder of images needs --images" in refused(capsys, "train", scans)
    assert "--images needs a folder" in refused(capsys, "train", "--images")


def test_options_of_tables_are_refused_by_a_model_of_images(capsys, scans, model):
    assert "--id has a meaning for tables only" in refused(capsys, "predict", model, scans, "--id", "x")
    assert "--unknown has a meaning for tables" in refused(capsys, "predict", model, scans, "--unknown", "ignore")
    assert "is one of the inputs" in refused(capsys, "predict", model, scans, "-o", model)


def test_options_of_images_are_refused_by_a_model_of_tables(capsys):
    rows = "".join(f"{i},{'yes' if i % 2 else 'no'}\n" for i in range(20))
    Path("a.csv").write_text(f"age,ill\n{rows}")
    assert run(capsys, "train", "a.csv", "--target", "ill", "--epochs", "1", "--quiet")[0] == 0
    model = "fastnn-run/model.fnn"
    assert "--skip-bad has a meaning for images only" in refused(capsys, "predict", model, "a.csv", "--skip-bad")
    assert "--skip-bad has a meaning for images only" in refused(capsys, "evaluate", model, "a.csv", "--skip-bad")
    assert "the model takes one CSV file" in refused(capsys, "predict", model, "a.csv", "a.csv")


# -------------------------------------------------------------------- interruption


def test_interruption_while_reading_is_one_line_and_130(capsys, scans, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "load", interrupt)
    code, out, err = run(capsys, "train", scans, *FAST)
    assert (code, out, err) == (130, "", "fastnn train: interrupted, nothing written\n")
    assert sorted(path.name for path in Path().iterdir()) == ["scans"]


def test_ctrl_c_ends_a_running_training_without_files(scans):
    options = ["--images", "--layers", "4", "--patience", "0", "--epochs", "100000000"]
    command = [sys.executable, "-m", "fastnn", "train", scans, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as training:
        assert any("Epoch" in line for line in training.stdout)
        training.send_signal(signal.SIGINT)
        _, err = training.communicate(timeout=60)
    assert training.returncode == 130
    assert err.splitlines()[-1] == "fastnn train: interrupted, nothing written"
    assert "Traceback" not in err
    assert [path.name for path in Path().iterdir()] == ["scans"]


def test_pillow_that_is_not_installed_is_one_line(capsys, scans, monkeypatch):
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "PIL" else find_spec(name))
    line = refused(capsys, "train", scans, *FAST)
    assert line == 'fastnn train: error: pillow is not installed; it comes with: pip install "fastnn-cpu[images]"'
