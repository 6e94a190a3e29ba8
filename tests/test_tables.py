"""Preprocessing of tables: types, statistics, storing, reading files, splits, and each kind of bad data."""

import json
import logging

import numpy as np
import pandas as pd
import pytest

from fastnn.jobs.files import staged_files, write_text
from fastnn.jobs.split import split_rows
from fastnn.tables import TablePreprocessor
from fastnn.tables.reading import breast_cancer_table, read_table


def patients(rows: int = 40, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(20, 90, rows),
            "mean radius": rng.normal(14.0, 3.0, rows),
            "smoker": rng.random(rows) < 0.4,
            "city": rng.choice(["Bern", "Basel", "Chur"], rows),
            "days": rng.normal(9.0, 2.0, rows).round(2),
            "ill": np.where(np.arange(rows) % 3 == 0, "yes", "no"),
        }
    )


def fitted(frame=None, **options) -> TablePreprocessor:
    return TablePreprocessor(**{"target": "ill", **options}).fit(patients() if frame is None else frame)


# -------------------------------------------------------------------- what is learnt


def test_numbers_are_standardized_and_categories_are_one_hot():
    table = patients()
    pre = fitted(table)
    x = pre.transform(table)
    assert x.dtype == np.float32
    assert x.shape == (40, 8) == (40, pre.features)
    assert pre.feature_names == [
        "age", "mean radius", "smoker=False", "smoker=True", "city=Basel", "city=Bern", "city=Chur", "days",
    ]  # fmt: skip
    radius = table["mean radius"].to_numpy()
    np.testing.assert_allclose(x[:, 1], (radius - radius.mean()) / radius.std(ddof=0), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(x[:, 3], table["smoker"])
    np.testing.assert_array_equal(x[:, 4:7].sum(axis=1), 1.0)
    np.testing.assert_array_equal(x[:, 5], table["city"] == "Bern")


def test_statistics_come_from_the_training_rows_alone():
    table = patients()
    table.loc[30:, "age"] = 1000
    pre = TablePreprocessor(target="ill").learn_columns(table)
    pre.learn_statistics(table.iloc[:30])
    assert pre.columns[0].mean == table["age"][:30].mean()
    assert pre.columns[0].scale == pytest.approx(table["age"][:30].std(ddof=0))


def test_a_constant_column_gets_scale_one():
    table = patients().assign(days=0.1)
    pre = fitted(table)
    assert pre.columns[-1].scale == 1.0
    assert not pre.transform(table)[:, -1].any()


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        (["b", "a", "b", "a"] * 5, "binary", ("a", "b")),
        ([True, False] * 10, "binary", ("False", "True")),
        ([0, 1] * 10, "binary", ("0", "1")),
        ([-1.5, 2.5] * 10, "binary", ("-1.5", "2.5")),
        ([2, 10, 1, 3] * 5, "multiclass", ("1", "2", "3", "10")),
        ([2.0, 1.0, 3.0, None] * 5, "multiclass", ("1", "2", "3")),
        (["c", "a", "b", "a"] * 5, "multiclass", ("a", "b", "c")),
        (list(range(20)), "regression", ()),
        ([0.5, 1.5, 2.5, 3.5] * 5, "regression", ()),
    ],
)
def test_the_kind_of_target_is_found_out(values, kind, classes):
    pre = fitted(pd.DataFrame({"x": np.arange(20.0), "ill": values}))
    assert (pre.kind, pre.classes) == (kind, classes)


def test_the_kind_of_target_can_be_forced():
    table = pd.DataFrame({"x": np.arange(20.0), "ill": [1, 2, 3, 4] * 5})
    assert fitted(table, task="regression").kind == "regression"
    table["ill"] = [0.5, 1.5, 2.5, 3.5] * 5
    assert fitted(table, task="classification").classes == ("0.5", "1.5", "2.5", "3.5")


def test_the_positive_class_can_be_named():
    pre = fitted(positive="no")
    assert pre.classes == ("yes", "no")
    assert pre.transform_target(pd.Series(["no", "yes"], name="ill")).tolist() == [1.0, 0.0]


def test_targets_become_what_a_network_learns():
    classes = fitted(pd.DataFrame({"x": np.arange(9.0), "ill": ["a", "b", "c"] * 3}))
    codes = classes.transform_target(pd.Series(["c", "a"], name="ill"))
    assert codes.dtype == np.int64
    assert codes.tolist() == [2, 0]
    number = fitted(target="days")
    days = patients()["days"]
    y = number.transform_target(days)
    assert y.dtype == np.float32
    assert y.mean() == pytest.approx(0, abs=1e-6)
    assert y.std() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(number.to_units(y.reshape(-1, 1)), days, rtol=1e-6)


def test_outputs_become_class_names():
    assert fitted().to_classes(np.array([[0.5], [0.51]])).tolist() == ["no", "yes"]
    assert fitted().to_classes(np.array([[0.2], [0.1]]), threshold=0.15).tolist() == ["yes", "no"]


def test_rows_with_missing_values_are_dropped_and_counted(caplog):
    caplog.set_level(logging.INFO)
    table = patients()
    table["age"] = table["age"].astype(float)
    table.loc[[1, 2], "age"] = np.nan
    table.loc[[2, 5], "city"] = None
    table.loc[7, "ill"] = None
    pre = TablePreprocessor(target="ill").learn_columns(table)
    assert np.flatnonzero(~pre.usable_rows(table)).tolist() == [1, 2, 5, 7]
    assert "dropped 1 row of 40 without a value of the target 'ill'" in caplog.text
    assert "dropped 3 rows of 40 with missing values, 2 of them in column 'age'" in caplog.text


def test_missing_values_are_imputed_with_median_and_most_frequent():
    table = patients()
    table["age"] = table["age"].astype(float)
    table.loc[[1, 2], "age"] = np.nan
    table.loc[[2, 5], "city"] = None
    pre = fitted(table, missing="impute")
    x = pre.transform(table)
    age, city = pre.columns[0], pre.columns[3]
    assert age.fill == table["age"].median()
    assert city.fill == table["city"].mode()[0]
    assert x[1, 0] == np.float32((age.fill - age.mean) / age.scale)
    assert pre.feature_names[4 + int(np.argmax(x[5, 4:7]))] == f"city={city.fill}"


def test_texts_that_mean_missing_can_be_named():
    table = patients().astype({"age": object})
    table.loc[3, "age"] = "?"
    pre = TablePreprocessor(target="ill", na_values=["?"]).learn_columns(table)
    assert np.flatnonzero(~pre.usable_rows(table)).tolist() == [3]


def test_numbers_can_be_taken_as_categories():
    pre = fitted(patients().assign(ward=[1, 2] * 20), categorical=["ward"])
    assert pre.columns[-1].categories == ("1", "2")


def test_columns_that_help_nobody_are_left_out(caplog):
    table = patients().assign(empty=np.nan, name=[f"patient {i}" for i in range(40)])
    pre = fitted(table)
    assert [column.name for column in pre.columns] == ["age", "mean radius", "smoker", "city", "days"]
    assert "column 'empty' has no values: left out" in caplog.text
    assert "column 'name' has 40 different texts in 40 rows: left out" in caplog.text
    pre.transform(table.drop(columns=["empty", "name"]))


def test_a_column_that_looks_like_an_identifier_is_pointed_out(caplog):
    fitted(patients().assign(patient_id=np.arange(1000, 1040)))
    assert "column 'patient_id' looks like an identifier" in caplog.text


# -------------------------------------------------------------------- bad data


def with_value(name, row, value):
    table = patients().astype({name: object})
    table.loc[row, name] = value
    return table


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (patients(), {"target": "il"}, r"target column 'il' is not in the table \(did you mean 'ill'\?\)"),
        (patients(), {"ignore": ["cty"]}, r"dropped column 'cty' is not in the table \(did you mean 'city'"),
        (patients(), {"ignore": ["ill"]}, "cannot be left out"),
        (patients().assign(ill="no"), {}, "'ill' has one value only, 'no': there is nothing to learn"),
        (patients().assign(ill=np.nan), {}, "target column 'ill' has no values"),
        (patients().iloc[:0], {}, "no rows"),
        (patients()[["ill"]], {}, "no column is left to predict 'ill' from"),
        (with_value("age", 6, "old"), {}, "column 'age', row 6: 'old' is not a number, as 39 of 40 are; .*--na 'old'"),
        (with_value("days", 6, np.inf), {}, "column 'days', row 6: inf is not a finite number"),
        (with_value("days", 6, "-inf"), {"target": "days"}, "column 'days', row 6: '-inf' is not a finite number"),
        (patients().assign(age=1e200 * np.arange(40)), {}, "column 'age' has values too large to standardize"),
        (patients().assign(age=[np.nan, 1] * 20, days=[1, np.nan] * 20), {}, "each of the 40 rows has a missing value"),
        (patients(), {"target": "city", "task": "regression"}, "target column 'city', row 0: .* is not a number"),
        (patients(), {"positive": "Yes"}, r"positive class 'Yes' is not .*did you mean 'yes'"),
        (patients(), {"target": "city", "positive": "Bern"}, "needs two classes, not 3"),
        (patients(), {"target": "days", "positive": "9"}, "needs classes"),
        (patients().assign(ill=[f"a{i}" for i in range(40)]), {}, "too many classes: 40 in 40 rows"),
        (patients().set_axis(["age", "age", "c", "d", "e", "ill"], axis=1), {}, "column name 'age' is used 2 times"),
    ],
)
def test_bad_training_tables_are_refused(table, options, message):
    with pytest.raises(ValueError, match=message):
        fitted(table, **options)


def changed(name, row, value):
    return with_value(name, row, value).iloc[5:10]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (patients().drop(columns="age"), r"lacks column 'age'"),
        (patients().rename(columns={"mean radius": "radius_mean"}), r"'mean radius' \(did you mean 'radius_mean'\?\)"),
        (patients().drop(columns=["age", "city", "days", "smoker"]), "'age', 'smoker', 'city' and 1 more"),
        (changed("age", 7, "old"), "column 'age', row 7: 'old' is not a number"),
        (changed("age", 7, True), "column 'age', row 7: True is not a number"),
        (changed("age", 7, -np.inf), "column 'age', row 7: -inf is not a finite number"),
        (changed("age", 7, 1e300), r"column 'age', row 7: 1e\+300 is out of range"),
        (changed("age", 7, None), r"column 'age': no value in row 7 \(only a model trained with missing='impute'"),
        (changed("city", 7, None), "column 'city': no value in row 7"),
        (
            changed("city", 7, "Berne"),
            r"column 'city', row 7: category 'Berne' .*did you mean 'Bern'.*--unknown ignore",
        ),
        (patients().iloc[:0], "no rows"),
        (patients().set_axis(["age", "age", "c", "d", "e", "ill"], axis=1), "column name 'age' is used 2 times"),
    ],
)
def test_bad_rows_to_predict_are_refused(table, message):
    pre = fitted()
    with pytest.raises(ValueError, match=message):
        pre.transform(table)


def test_columns_may_come_in_any_order_and_with_others(caplog):
    table = patients()
    pre = fitted(table)
    shuffled = table[["city", "ill", "days", "mean radius", "smoker", "age"]].assign(ward=3)
    np.testing.assert_array_equal(pre.transform(shuffled), pre.transform(table))
    assert "ignored column not seen in training: 'ward'" in caplog.text


def test_unknown_categories_can_be_ignored(caplog):
    pre = fitted()
    x = pre.transform(changed("city", 7, "Berne"), unknown="ignore")
    assert not x[2, 4:7].any()
    assert x[:2, 4:7].any(axis=1).all()
    assert "column 'city': unknown category in 1 row, first in row 7 ('Berne')" in caplog.text


def test_bad_targets_are_refused():
    pre = fitted()
    with pytest.raises(
        ValueError, match=r"target column 'ill', row 1: 'Yes' is none of the classes \(did you mean 'yes'"
    ):
        pre.transform_target(pd.Series(["no", "Yes"], name="ill"))
    with pytest.raises(ValueError, match="column 'ill': no value in row 1"):
        pre.transform_target(pd.Series(["no", None], name="ill"))


@pytest.mark.parametrize("option", ["task", "missing", "unknown"])
def test_options_that_do_not_exist_are_refused(option):
    with pytest.raises(ValueError, match=f"TablePreprocessor: {option} must be one of .* Received: {option}='perhaps'"):
        TablePreprocessor(target="ill", **{option: "perhaps"})


def test_nothing_can_be_transformed_before_fit():
    with pytest.raises(ValueError, match="call fit first"):
        TablePreprocessor(target="ill").transform(patients())


# -------------------------------------------------------------------- storing


@pytest.mark.parametrize("target", ["ill", "city", "days", "smoker"])
def test_a_stored_preprocessor_does_the_same_bit_for_bit(target):
    table = patients()
    pre = fitted(table, target=target, missing="impute", na_values=["?"])
    again = TablePreprocessor.from_config(json.loads(json.dumps(pre.to_config(), allow_nan=False)))
    assert again.to_config() == pre.to_config()
    np.testing.assert_array_equal(again.transform(table), pre.transform(table))
    np.testing.assert_array_equal(again.transform_target(table[target]), pre.transform_target(table[target]))
    assert again.usable_rows(table).all()


def edited(**fields):
    config = {**fitted().to_config(), **fields}
    return {name: value for name, value in config.items() if value is not ...}


def column(**fields):
    return edited(columns=[{"kind": "number", "name": "x", "fill": 0, "mean": 0, "scale": 1, **fields}])


def categories(**fields):
    return edited(columns=[{"kind": "category", "name": "x", "fill": "a", "categories": ["a", "b"], **fields}])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "preprocessing must be an object"),
        (edited(data="images"), "data must be one of table. Received: 'images'"),
        (edited(format=2), "format must be 1 .* Received: 2"),
        (edited(format=...), "format must be a finite number. Received: nothing"),
        (edited(target=3), "target must be a string"),
        (edited(kind="magic"), "kind must be one of binary, multiclass, regression"),
        (edited(kind="multiclass"), "classes do not fit the kind multiclass"),
        (edited(kind="regression", classes=[]), "classes do not fit the kind regression"),
        (edited(classes=["a", "a"]), "classes must not hold a string twice"),
        (edited(classes=[1, 2]), "classes must be a list of strings"),
        (edited(target_is_number=1), "target_is_number must be true or false"),
        (edited(target_mean=float("nan")), "target_mean must be a finite number"),
        (edited(target_mean=10**400), "target_mean must be a finite number"),
        (edited(target_scale=0), "target_scale must be above zero"),
        (edited(target_scale=True), "target_scale must be a finite number"),
        (edited(missing="guess"), "missing must be one of drop, impute"),
        (edited(columns=[]), "columns must be a list that is not empty"),
        (edited(columns={}), "columns must be a list"),
        (edited(columns=[3]), "column must be an object"),
        (edited(extra=1), "unknown field 'extra'"),
        (column(scale=-1), "scale must be above zero"),
        (column(mean="0"), "mean must be a finite number"),
        (column(name="ill"), "columns must have different names"),
        (column(size=2), "unknown field 'size'"),
        (column(kind="image"), "kind must be one of number, category"),
        (categories(fill="z"), "fill must be one of the categories"),
        (categories(categories=["a", "a"]), "categories must not hold a string twice"),
        (categories(categories="ab"), "categories must be a list of strings"),
    ],
)
def test_stored_preprocessing_is_checked(config, message):
    with pytest.raises(ValueError, match=message):
        TablePreprocessor.from_config(config)


# -------------------------------------------------------------------- files


def written(path, content):
    path = path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,x\n2.5,y\n",
        "\ufeffa,b\n1,x\n2.5,y\n",
        " a , b\r\n1, x\r\n2.5, y\r\n",
        "a;b\n1;x\n2.5;y\n",
        "a;b\n1,0;x\n2,5;y\n",
        "a\tb\n1\tx\n2.5\ty\n",
        '"a","b"\n"1","x"\n\n"2.5","y"',
        "a,b\n1,x\n2.5,y\n".encode("utf-16"),
    ],
)
def test_tables_are_read_whatever_separator_and_encoding(tmp_path, content):
    frame = read_table(written(tmp_path, content))
    assert list(frame.columns) == ["a", "b"]
    assert list(frame.index) == [1, 2]
    assert frame["a"].tolist() == [1.0, 2.5]
    assert frame["b"].tolist() == ["x", "y"]


def test_an_old_encoding_is_read_and_said(tmp_path, caplog):
    frame = read_table(written(tmp_path, "a,b\n1,Zürich\n".encode("cp1252")))
    assert frame["b"].tolist() == ["Zürich"]
    assert "is not UTF-8" in caplog.text


def test_text_columns_keep_their_leading_zeros(tmp_path):
    assert read_table(written(tmp_path, "a,b\n01,2\n"), ["a"])["a"].tolist() == ["01"]


def test_a_column_without_a_name_is_left_out(tmp_path, caplog):
    frame = read_table(written(tmp_path, ",a,b\n0,1,2\n1,3,4\n"))
    assert list(frame.columns) == ["a", "b"]
    assert "column 1 has no name: left out" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "table.csv is empty"),
        ("\n \n", "table.csv is empty"),
        ("a,b\n", "has a header but no rows"),
        ("a,b,a\n1,2,3\n", "column name 'a' is used 2 times"),
        ("a,b\n1,2,3\n4,5,6\n", "more values than the 2 names of the header"),
        ("a,b\n1,2\n4,5,6\n", "not a well-formed CSV file: Expected 2 fields in line 3, saw 3"),
        ('a,b\n1,"2\n', "not a well-formed CSV file"),
        (",\n1,2\n", "the header has no names"),
        (bytes(range(256)), "is not a text file"),
        (b"\x89PNG\r\n\x1a\n" + b"\x81" * 50, "is not a text file"),
        (b"PK\x03\x04junk", "an Excel workbook: save it as CSV"),
    ],
)
def test_bad_files_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_table(written(tmp_path, content))


def test_missing_files_and_directories_are_refused(tmp_path):
    written(tmp_path, "a\n1\n")
    with pytest.raises(ValueError, match=r"there is no file .*tabel.csv \(did you mean 'table.csv'\?\)"):
        read_table(tmp_path / "tabel.csv")
    with pytest.raises(ValueError, match="is a directory, not a CSV file"):
        read_table(tmp_path)


def test_the_built_in_data_has_text_labels():
    frame = breast_cancer_table()
    assert frame.shape == (569, 31)
    assert frame["diagnosis"].value_counts().to_dict() == {"benign": 357, "malignant": 212}


def test_files_of_a_failed_block_are_not_touched(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ValueError, match="stop"), staged_files(tmp_path, ["a.txt", "b.txt"]) as place:
        (place / "a.txt").write_text("new")
        raise ValueError("stop")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_places_that_cannot_be_written_are_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "out" / "model.fnn").mkdir(parents=True)
    with pytest.raises(ValueError, match="is a file"), staged_files(tmp_path / "file", ["a"]):
        pytest.fail("the block must not run")
    with pytest.raises(ValueError, match="is a directory"), staged_files(tmp_path / "out", ["model.fnn"]):
        pytest.fail("the block must not run")
    with pytest.raises(ValueError, match="is a directory"):
        write_text(tmp_path / "out", "text")


# -------------------------------------------------------------------- splits


def names(*counts):
    return np.repeat([f"class {k}" for k in range(len(counts))], counts)


def test_parts_are_disjoint_stratified_and_repeatable():
    labels = names(60, 40)
    split = split_rows(labels, 100, seed=5)
    assert sorted(np.concatenate(split).tolist()) == list(range(100))
    assert [(labels[part] == "class 1").sum() for part in split] == [26, 6, 8]
    for part, again in zip(split, split_rows(labels, 100, seed=5), strict=True):
        np.testing.assert_array_equal(part, again)
    assert split_rows(labels, 100, seed=6).test.tolist() != split.test.tolist()


@pytest.mark.parametrize("labels", [None, names(70, 50)])
def test_rows_of_a_group_stay_together(labels):
    groups = np.array([f"patient {i % 30}" for i in range(120)])
    split = split_rows(labels, 120, groups=groups, seed=1)
    train, validation, test = (set(groups[part]) for part in split)
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert len(split.test) == 24
    assert sorted(np.concatenate(split).tolist()) == list(range(120))


def test_validation_can_be_left_out():
    split = split_rows(None, 10, validation_size=0)
    assert [len(part) for part in split] == [8, 0, 2]


@pytest.mark.parametrize(
    ("labels", "count", "options", "message"),
    [
        (None, 1, {}, "cannot split a test part off 1 row"),
        (names(9, 1), 10, {}, "a class has 1 row only, too few to be in both parts: 'class 1'"),
        (None, 10, {"groups": np.zeros(10)}, "there is only one group"),
        (None, 10, {"test_size": 1.0}, "test size must be a share below 1 and above 0"),
        (None, 10, {"validation_size": -0.1}, "validation size must be a share below 1"),
    ],
)
def test_splits_that_cannot_be_made_are_refused(labels, count, options, message):
    with pytest.raises(ValueError, match=message):
        split_rows(labels, count, **options)


def test_numbers_with_leading_zeros_are_names(tmp_path):
    path = tmp_path / "wards.csv"
    path.write_text("ward,age,ill\n01,30,no\n02,41,yes\n10,52,no\n01,33,yes\n")
    frame = read_table(path)
    assert frame["ward"].tolist() == ["01", "02", "10", "01"]
    assert frame["age"].tolist() == [30, 41, 52, 33]


def test_very_many_groups_stay_whole_and_keep_the_classes_shares():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 8000, 40_000)
    labels = (rng.random(40_000) < 0.3).astype(int)
    split = split_rows(labels, len(labels), groups=groups, seed=1)
    parts = [set(groups[part]) for part in split]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert all(abs(labels[part].mean() - 0.3) < 0.02 for part in split)
    assert abs(len(split.test) / len(labels) - 0.2) < 0.01
