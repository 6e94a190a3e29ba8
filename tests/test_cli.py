"""The command line: the main job from a CSV to files, predictions from raw rows, and each kind of bad input."""

import io
import json
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

import fastnn
from fastnn import cli
from fastnn.jobs.training import RUN_FILES
from fastnn.tables.reading import breast_cancer_table

JUNK = {
    "empty": b"",
    "text": b"age,ill\n1,yes\n",
    "zeros": b"\x00" * 64,
    "an empty header": b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ",
}
FAST = ["--epochs", "3", "--layers", "8", "--quiet"]


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(capsys, *arguments):
    """Exit code, standard output and standard error of ``fastnn ARGUMENTS``."""
    capsys.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    return (code, *capsys.readouterr())


def refused(capsys, *arguments):
    """The one line of an error that exits with 2 and writes nothing to standard output."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    code, out, err = run(capsys, *arguments)
    lines = [line for line in err.splitlines() if "warning: " not in line and ": error: " in line]
    assert code == 2
    assert out == ""
    assert len(lines) == 1, err
    assert err.splitlines()[-1] == lines[0]
    assert "Traceback" not in err
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    return lines[0]


def patients(rows=120, seed=0):
    rng = np.random.default_rng(seed)
    age = rng.integers(20, 90, rows)
    smoker = rng.random(rows) < 0.5
    risk = age / 20 + 2 * smoker + rng.normal(0, 0.7, rows)
    return pd.DataFrame(
        {
            "patient": [f"{i // 3:03d}" for i in range(rows)],
            "age": age,
            "smoker": smoker,
            "city": rng.choice(["Bern", "Basel", "Chur"], rows),
            "pressure": (100 + 10 * risk).round(1),
            "stage": np.digitize(risk, [2.5, 4.0]) + 1,
            "ill": np.where(risk > 3.5, "yes", "no"),
        }
    )


@pytest.fixture
def table():
    """patients.csv, written."""
    patients().to_csv("patients.csv", index=False)
    return "patients.csv"


@pytest.fixture
def model(table, capsys):
    """A model of patients.csv that predicts "ill" from age, smoker, city and pressure."""
    options = ["--target", "ill", "--drop", "stage", "--drop", "patient"]
    assert run(capsys, "train", table, *options, "--out", "run", *FAST)[0] == 0
    return "run/model.fnn"


# -------------------------------------------------------------------- the main job


def test_the_built_in_job_writes_four_files_and_finds_the_malignant(capsys):
    code, out, err = run(capsys, "train", "--out", "run")
    assert code == 0, err
    assert "target 'diagnosis': two classes; 'malignant' is the positive one, 'benign' the other" in err
    assert "--positive" in err
    assert "On 114 held-out rows (positive class: malignant):" in out
    assert sorted(path.name for path in Path("run").iterdir()) == sorted(RUN_FILES)
    assert not list(Path().glob(".fastnn-*"))
    found = json.loads(Path("run/metrics.json").read_text())
    assert found["rows"] == {"read": 569, "used": 569, "train": 364, "validation": 91, "test": 114}
    assert found["test"]["accuracy"] > 0.9
    assert found["test"]["recall"] > 0.85
    assert found["test"]["roc_auc"] > 0.97
    assert np.sum(found["test"]["confusion_matrix"]) == 114
    history = pd.read_csv("run/history.csv")
    assert list(history.columns) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    assert found["epochs"] == found["best_epoch"] + 20  # the default patience
    assert history["epoch"].tolist() == list(range(1, found["epochs"] + 1))
    assert Path("run/learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_train_predict_and_evaluate_agree_on_raw_rows(capsys):
    breast_cancer_table().to_csv("data.csv", index=False)
    assert run(capsys, "train", "data.csv", "--target", "diagnosis", "--epochs", "20", "--quiet")[0] == 0
    code, out, _ = run(capsys, "evaluate", "fastnn-run/model.fnn", "data.csv", "--json")
    found = json.loads(out)
    assert code == 0
    assert run(capsys, "predict", "fastnn-run/model.fnn", "data.csv", "-o", "out.csv")[:2] == (0, "")
    predicted = pd.read_csv("out.csv")
    truth = breast_cancer_table()["diagnosis"].to_numpy()
    assert list(predicted.columns) == ["prediction", "probability_malignant"]
    assert found["rows"] == len(predicted) == 569
    assert found["accuracy"] == pytest.approx(np.mean(predicted["prediction"] == truth))
    auc = metrics.roc_auc_score(truth == "malignant", predicted["probability_malignant"])
    assert found["roc_auc"] == pytest.approx(auc, abs=1e-9)


def test_the_same_seed_gives_the_same_files_and_another_one_does_not(capsys, table):
    for seed, out in ((3, "one"), (3, "two"), (4, "three")):
        assert run(capsys, "train", table, "--target", "ill", "--seed", seed, "--out", out, *FAST)[0] == 0
    histories = [Path(out, "history.csv").read_text() for out in ("one", "two", "three")]
    assert histories[0] == histories[1] != histories[2]
    predictions = [run(capsys, "predict", f"{out}/model.fnn", table)[1] for out in ("one", "two")]
    assert predictions[0] == predictions[1]


def test_several_classes_give_a_probability_each(capsys, table):
    options = ["--drop", "patient", "--drop", "ill", "--class-weight", "balanced"]
    code, out, err = run(capsys, "train", table, "--target", "stage", *options, "--json", "--epochs", "30")
    found = json.loads(out)
    assert code == 0
    assert "target 'stage': 3 classes: '1', '2', '3'" in err
    assert found["kind"] == "multiclass"
    assert found["test"]["accuracy"] > 0.5
    assert len(found["test"]["per_class"]["f1"]) == 3
    _, out, _ = run(capsys, "predict", "fastnn-run/model.fnn", table)
    predicted = pd.read_csv(io.StringIO(out))
    names = ["probability_1", "probability_2", "probability_3"]
    assert list(predicted.columns) == ["prediction", *names]
    np.testing.assert_allclose(predicted[names].sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(predicted["prediction"], predicted[names].to_numpy().argmax(axis=1) + 1)
    _, out, _ = run(capsys, "evaluate", "fastnn-run/model.fnn", table)
    assert "recall, macro" in out
    assert "predicted" in out


def test_a_number_is_predicted_in_its_own_units(capsys, table):
    options = ["--drop", "patient", "--drop", "ill", "--drop", "stage", "--epochs", "60"]
    code, out, _ = run(capsys, "train", table, "--target", "pressure", *options, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["kind"] == "regression"
    assert found["test"]["r2"] > 0.5
    assert set(found["test"]) == {"rmse", "mae", "r2"}
    _, out, _ = run(capsys, "predict", "fastnn-run/model.fnn", table)
    predicted = pd.read_csv(io.StringIO(out))
    assert list(predicted.columns) == ["prediction"]
    assert predicted["prediction"].mean() == pytest.approx(patients()["pressure"].mean(), abs=5)
    _, out, _ = run(capsys, "evaluate", "fastnn-run/model.fnn", table)
    assert "RMSE" in out


def test_rows_of_a_patient_stay_on_one_side(capsys, table):
    options = ["--target", "ill", "--group", "patient", "--drop", "stage"]
    code, out, err = run(capsys, "train", table, *options, "--json", "--epochs", "2")
    found = json.loads(out)
    assert code == 0, err
    assert all(found["rows"][part] % 3 == 0 for part in ("train", "validation", "test"))
    assert found["features"] == 1 + 2 + 3 + 1


def test_missing_values_are_dropped_and_said_or_imputed(capsys, table):
    frame = patients().drop(columns=["patient", "stage"]).astype({"age": float})
    frame.loc[[0, 5, 7], "age"] = np.nan
    frame.loc[3, "ill"] = None
    frame.to_csv("holes.csv", index=False)
    code, out, err = run(capsys, "train", "holes.csv", "--target", "ill", "--json", "--epochs", "2")
    assert code == 0
    assert "dropped 1 row of 120 without a value of the target 'ill'" in err
    assert "dropped 3 rows of 120 with missing values" in err
    assert json.loads(out)["rows"]["used"] == 116
    assert run(capsys, "evaluate", "fastnn-run/model.fnn", "holes.csv", "--json")[0] == 0
    line = refused(capsys, "predict", "fastnn-run/model.fnn", "holes.csv")
    assert "column 'age': no value in rows 1, 6, 8" in line
    options = ["--missing", "impute", "--json", "--epochs", "2"]
    _, out, _ = run(capsys, "train", "holes.csv", "--target", "ill", *options)
    assert json.loads(out)["rows"]["used"] == 119
    assert run(capsys, "predict", "fastnn-run/model.fnn", "holes.csv", "-o", "out.csv")[0] == 0
    assert len(pd.read_csv("out.csv")) == 120


def test_early_stopping_ends_at_the_best_epoch(capsys, table):
    options = ["--patience", "3", "--epochs", "500", "--learning-rate", "0.05", "--drop", "stage", "--json"]
    code, out, _ = run(capsys, "train", table, "--target", "ill", *options)
    found = json.loads(out)
    assert code == 0
    assert found["epochs"] == found["best_epoch"] + 3 < 500
    assert len(pd.read_csv("fastnn-run/history.csv")) == found["epochs"]


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adamw"])
def test_network_options_are_used(capsys, table, optimizer):
    options = ["--layers", "7,5", "--activation", "tanh", "--dropout", "0.1", "--batch-size", "16", "--epochs", "2"]
    options += ["--optimizer", optimizer, "--validation-size", "0", "--test-size", "0.25", "--threads", "1"]
    code, out, err = run(capsys, "train", table, "--target", "ill", "--positive", "no", *options, "--json")
    found = json.loads(out)
    assert code == 0, err
    assert found["rows"]["test"] == 30
    assert "validation" not in found
    assert found["positive"] == "no"
    features = found["features"]
    assert found["parameters"] == features * 7 + 7 + 7 * 5 + 5 + 5 + 1


def test_no_hidden_layer_is_a_linear_model(capsys, table):
    _, out, _ = run(capsys, "train", table, "--target", "ill", "--layers", "none", "--epochs", "2", "--json")
    assert json.loads(out)["parameters"] == json.loads(out)["features"] + 1


def test_the_progress_and_the_results_are_shown_unless_quiet(capsys, table):
    _, out, _ = run(capsys, "train", table, "--target", "ill", "--epochs", "2")
    assert "loss" in out
    assert "recall (sensitivity)" in out
    assert run(capsys, "train", table, "--target", "ill", *FAST)[1] == ""


# -------------------------------------------------------------------- predict


def test_columns_may_be_reordered_and_others_are_ignored(capsys, table, model):
    frame = patients()
    expected = run(capsys, "predict", model, table)[1]
    frame[["city", "pressure", "age", "smoker"]].assign(ward=7).to_csv("other.csv", index=False)
    code, out, err = run(capsys, "predict", model, "other.csv")
    assert code == 0
    assert out == expected
    assert "fastnn predict: warning: ignored column not seen in training: 'ward'" in err


def test_an_id_column_is_copied_as_it_is_written(capsys, table, model):
    code, out, err = run(capsys, "predict", model, table, "--id", "patient", "--threshold", "0.25")
    assert (code, err) == (0, "")
    predicted = pd.read_csv(io.StringIO(out), dtype={"patient": str})
    assert predicted["patient"].tolist() == patients()["patient"].tolist()
    positive = predicted["prediction"] == "yes"
    np.testing.assert_array_equal(positive, predicted["probability_yes"] > 0.25)


def test_predictions_as_json(capsys, table, model):
    code, out, _ = run(capsys, "predict", model, table, "--json")
    records = json.loads(out)
    assert code == 0
    assert len(records) == 120
    assert set(records[0]) == {"prediction", "probability_yes"}


def test_one_row_is_enough_to_predict(capsys, table, model):
    patients().iloc[:1].to_csv("one.csv", index=False)
    _, every, _ = run(capsys, "predict", model, table)
    assert run(capsys, "predict", model, "one.csv")[1].splitlines() == every.splitlines()[:2]


def test_info_describes_the_model_and_its_preprocessing(capsys, model):
    code, out, _ = run(capsys, "info", model)
    assert code == 0
    assert "target 'ill': two classes; 'yes' is the positive one, 'no' the other" in out
    assert "3 categories: 'Basel', 'Bern', 'Chur'" in out
    found = json.loads(run(capsys, "info", model, "--json")[1])
    assert found["input_shape"] == [None, 7]
    assert found["parameters"] == 7 * 8 + 8 + 8 + 1
    assert [column["name"] for column in found["preprocessing"]["columns"]] == ["age", "smoker", "city", "pressure"]


def test_config_and_version(capsys):
    assert run(capsys, "--version")[:2] == (0, f"fastnn {fastnn.__version__}\n")
    code, out, _ = run(capsys, "config")
    assert code == 0
    assert fastnn.config.backend() in out
    assert json.loads(run(capsys, "config", "--json")[1])["backend"] == fastnn.config.backend()


def test_bench_hands_its_options_on(capsys, monkeypatch):
    import fastnn.benchmarking

    seen = []
    monkeypatch.setattr(fastnn.benchmarking, "main", lambda options: seen.append(options) or 0, raising=False)
    assert run(capsys, "bench", "--json", "--anything", "3")[0] == 0
    assert seen == [["--json", "--anything", "3"]]


def test_python_m_fastnn_is_the_command():
    command = [sys.executable, "-m", "fastnn", "predict", "no.fnn", "no.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fastnn predict: error: there is no file no.fnn\n"


# -------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file data.csv"),
        ("", "data.csv is empty"),
        ("age,ill\n", "data.csv has a header but no rows"),
        ("age,il\n1,yes\n2,no\n", "the target column 'ill' is not in the table (did you mean 'il'?)"),
        ("age,ill\n" + "1,yes\n" * 9, "the target column 'ill' has one value only, 'yes'"),
        ("age,ill\n1,yes\n", "the target column 'ill' has one value only, 'yes'"),
        ("age,ill\n1,yes\n2,no\n", "cannot split a test part off 2 rows"),
        ("age,ill\n1,\n2,\n", "the target column 'ill' has no values"),
        ("age,ill\n1,yes\n2,no\nx,no\n3,yes\n", "column 'age', row 3: 'x' is not a number"),
        ("age,ill\n1,yes\n2,no\ninf,no\n3,yes\n", "column 'age', row 3: inf is not a finite number"),
        ("age,age,ill\n1,2,yes\n", "column name 'age' is used 2 times"),
        ("age,ill\n" + ",yes\n,no\n" * 9, "no column is left to predict 'ill' from"),
        ("age,ill\n1,yes,3\n", "more values than the 2 names of the header"),
        (b"\x00\x01\x02" * 99, "data.csv is not a text file"),
    ],
)
def test_bad_training_files_are_one_line(capsys, content, message):
    if content is not None:
        Path("data.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refused(capsys, "train", "data.csv", "--target", "ill")
    assert line.startswith("fastnn train: error: ")
    assert message in line
    assert not Path("fastnn-run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--target COLUMN is needed"),
        (["--target", "ill", "--group", "patent"], "'patent' is not in the table (did you mean 'patient'?)"),
        (["--target", "ill", "--group", "ill"], "cannot be both target and group"),
        (["--target", "ill", "--drop", "ages"], "did you mean 'age'?"),
        (["--target", "ill", "--drop", "ill"], "cannot be left out"),
        (["--target", "city", "--task", "regression"], "is not a number"),
        (["--target", "pressure", "--class-weight", "balanced"], "class weights have no meaning"),
        (["--target", "ill", "--positive", "maybe"], "the positive class 'maybe' is not in"),
        (["--target", "ill", "--activation", "rulu"], "rulu"),
        (["--target", "ill", "--epochs", "0"], "argument --epochs: must be a whole number from 1 on"),
        (["--target", "ill", "--layers", "64,x"], "argument --layers: must be whole numbers"),
        (["--target", "ill", "--test-size", "1"], "argument --test-size: must be above 0 and below 1"),
        (["--target", "ill", "--seed", "-1"], "argument --seed: must be a whole number"),
        (["--target", "ill", "--learning-rate", "nan"], "argument --learning-rate: must be a number above 0"),
        (["--target", "ill", "--optimizer", "adem"], "argument --optimizer: invalid choice"),
        (["--target", "ill", "--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["--target", "ill", "--out", "patients.csv"], "the output directory patients.csv is a file"),
    ],
)
def test_bad_training_options_are_one_line(capsys, table, options, message):
    assert message in refused(capsys, "train", table, *options, "--quiet")


def test_a_directory_is_no_table_and_no_model(capsys, table, model):
    Path("folder").mkdir()
    assert "folder is a directory" in refused(capsys, "train", "folder", "--target", "ill")
    assert "folder is a directory" in refused(capsys, "predict", model, "folder")
    assert "run is a directory, not a model file (there is a model.fnn in it)" in refused(capsys, "info", "run")


@pytest.mark.parametrize("command", ["predict", "evaluate", "info"])
@pytest.mark.parametrize(
    "content", [b"", b"age,ill\n1,yes\n", b"\x00" * 64, b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "]
)
def test_a_file_that_is_no_model_is_one_line(capsys, table, command, content):
    Path("model.fnn").write_bytes(content)
    line = refused(capsys, command, "model.fnn", *([] if command == "info" else [table]))
    assert line.startswith(f"fastnn {command}: error: ")
    assert "model.fnn" in line


def test_a_model_without_preprocessing_takes_no_rows(capsys, table):
    model = fastnn.Sequential([fastnn.layers.Dense(1, input_shape=(3,))])
    model.compile(optimizer="sgd", loss="mse")
    model.save("plain.fnn")
    assert "holds no preprocessing" in refused(capsys, "predict", "plain.fnn", table)
    code, out, _ = run(capsys, "info", "plain.fnn")
    assert code == 0
    assert "no preprocessing" in out


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda frame: frame.drop(columns="age"), "the table lacks column 'age'"),
        (lambda frame: frame.rename(columns={"age": "Age"}), "lacks column 'age' (did you mean 'Age'?)"),
        (lambda frame: frame.assign(age="old"), "column 'age', row 1: 'old' is not a number"),
        (lambda frame: frame.assign(age=np.inf), "column 'age', row 1: inf is not a finite number"),
        (lambda frame: frame.assign(age=1e300), "column 'age', row 1: 1e+300 is out of range"),
        (lambda frame: frame.assign(city="Genf"), "column 'city', row 1: category 'Genf' was never seen"),
        (lambda frame: frame.iloc[:0], "has a header but no rows"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_rows_that_do_not_fit_the_model_are_one_line(capsys, table, model, edit, message, command):
    edit(patients()).to_csv("new.csv", index=False)
    assert message in refused(capsys, command, model, "new.csv")


def test_unknown_categories_can_be_ignored(capsys, table, model):
    patients().assign(city="Genf").to_csv("new.csv", index=False)
    code, _, err = run(capsys, "predict", model, "new.csv", "--unknown", "ignore")
    assert code == 0
    assert "unknown category in 120 rows" in err


def test_evaluation_needs_the_target_and_its_classes(capsys, table, model):
    patients().drop(columns="ill").to_csv("new.csv", index=False)
    assert "the table lacks column 'ill'" in refused(capsys, "evaluate", model, "new.csv")
    patients().assign(ill="Yes").to_csv("new.csv", index=False)
    line = refused(capsys, "evaluate", model, "new.csv")
    assert "row 1: 'Yes' is none of the classes (did you mean 'yes'?)" in line


def test_evaluation_of_one_class_says_what_is_not_defined(capsys, table, model):
    patients().query("ill == 'no'").to_csv("new.csv", index=False)
    code, out, _ = run(capsys, "evaluate", model, "new.csv")
    assert code == 0
    assert "n/a" in out
    assert json.loads(run(capsys, "evaluate", model, "new.csv", "--json")[1])["recall"] is None


def test_a_prediction_overwrites_neither_its_model_nor_its_rows(capsys, table, model):
    assert "is one of the inputs" in refused(capsys, "predict", model, table, "-o", model)
    assert "is one of the inputs" in refused(capsys, "predict", model, table, "-o", f"./{table}")
    assert "there is no directory no/such" in refused(capsys, "predict", model, table, "-o", "no/such/place.csv")


def test_a_loss_that_is_no_number_is_an_error_and_old_files_stay(capsys, table, model):
    Path("out.csv").write_text("old\n")
    options = ["--target", "pressure", "--optimizer", "sgd", "--learning-rate", "1e30", "--out", "run", "--quiet"]
    line = refused(capsys, "train", table, *options)
    assert "the loss became " in line
    patients().assign(age=np.inf).to_csv("new.csv", index=False)
    refused(capsys, "predict", model, "new.csv", "-o", "out.csv")
    assert Path("out.csv").read_text() == "old\n"
    assert run(capsys, "predict", model, table)[0] == 0


def test_a_failure_while_writing_leaves_the_old_files(capsys, table, model, monkeypatch):
    import fastnn.jobs.training

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fastnn.jobs.training, "learning_curve", fail)
    line = refused(capsys, "train", table, "--target", "ill", "--seed", "9", "--out", "run", *FAST)
    assert line == "fastnn train: error: No space left on device"


def test_interruption_is_one_line_and_130(capsys, table, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fastnn.Sequential, "fit", interrupt)
    code, out, err = run(capsys, "train", table, "--target", "ill", "--quiet")
    assert (code, out) == (130, "")
    assert err == "fastnn train: interrupted, nothing written\n"
    assert not Path("fastnn-run").exists()


def test_ctrl_c_ends_a_running_training_without_files(table):
    options = ["--target", "ill", "--patience", "0", "--epochs", "100000000"]
    command = [sys.executable, "-m", "fastnn", "train", table, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as training:
        assert "Epoch" in training.stdout.readline()
        training.send_signal(signal.SIGINT)
        _, err = training.communicate(timeout=60)
    assert training.returncode == 130
    assert err.splitlines()[-1] == "fastnn train: interrupted, nothing written"
    assert "Traceback" not in err
    assert [path.name for path in Path().iterdir()] == [table]


@pytest.mark.parametrize("package", ["pandas", "scikit-learn", "matplotlib"])
def test_a_package_that_is_not_installed_is_one_line(capsys, monkeypatch, package):
    module = "sklearn" if package == "scikit-learn" else package
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == module else find_spec(name))
    line = refused(capsys, "train")
    assert line == f'fastnn train: error: {package} is not installed; it comes with: pip install "fastnn-cpu[tables]"'
