"""CSV files, house prices and downloads."""

from __future__ import annotations

import hashlib
import io
import math
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from d2lkernels import d2l
from d2lkernels.data import DataError


def write(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text)
    return path


HOUSE_TINY = "NumRooms,Alley,Price\nNA,Pave,127500\n2,NA,106000\n4,NA,178100\nNA,NA,140000\n"


def test_the_books_small_table_becomes_a_tensor(tmp_path):
    frame = d2l.read_csv(write(tmp_path, HOUSE_TINY))
    inputs, names = d2l.frame_to_tensor(frame[["NumRooms", "Alley"]])
    assert inputs.tolist() == [[3, 1, 0], [2, 0, 1], [4, 0, 1], [3, 0, 1]]
    assert names == ["NumRooms", "Alley_Pave", "Alley_nan"]
    assert frame["Price"].tolist() == [127500, 106000, 178100, 140000]


@pytest.mark.parametrize(
    "text, message",
    [
        ("a,b\n1,2\n3\n", r"row 2 \(line 3\) to have 2 cells.*but got 1, without column 'b'"),
        ("a,b\n1,2,3\n", r"row 1 \(line 2\) to have 2 cells.*but got 3, more than there are columns"),
        ("a,b\n1,2\n2,x\n3,4\n", r"row 2 \(line 3\), column 'b' to be a number, but got 'x'.*text=\['b'\]"),
        ("a,b\n1,2\n2,inf\n3,4\n", "row 2 .*column 'b' to be a number, but got 'inf'"),
        ("a,b\n", "to have rows below the header, but got none"),
        ("", "to have a header, but it is empty"),
        ("a,a\n1,2\n", "a name of its own for column 2, but got 'a'"),
        ('a,b\n1,"2\n', "to be a CSV file, but line 2"),
    ],
)
def test_a_bad_table_is_said_with_row_and_column(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        d2l.read_csv(write(tmp_path, text))


def test_other_bad_tables_are_said(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.csv to exist, but it is missing"):
        d2l.read_csv(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="to be readable"):
        d2l.read_csv(tmp_path)
    (tmp_path / "latin.csv").write_bytes("a\nœuf".encode("utf-16"))
    with pytest.raises(DataError, match="text in UTF-8"):
        d2l.read_csv(tmp_path / "latin.csv")
    path = write(tmp_path, "a,b\nx,y\nz,NA\n")
    with pytest.raises(DataError, match=r"row 1 .*column 'a' to be a number, but got 'x'"):
        d2l.read_csv(path, numeric=["a"])
    with pytest.raises(ValueError, match=r"columns of .*, which are .*a.*, but got 'A'"):
        d2l.read_csv(path, text=["A"])
    with pytest.raises(DataError, match="to have a numeric column, but all are text: a, b"):
        d2l.frame_to_tensor(d2l.read_csv(path))
    with pytest.raises(DataError, match="column 'b' to have a value, but all are missing"):
        d2l.frame_to_tensor(d2l.read_csv(write(tmp_path, "a,b\n1,NA\n2,\n")))
    assert d2l.read_csv(write(tmp_path, "a\n1\nx\n3\n"), text=["a"])["a"].tolist() == ["1", "x", "3"]


def test_house_prices_cross_validate_and_predict(tmp_path, capsys):
    torch.manual_seed(0)
    houses = d2l.load_houses(*d2l.generate_houses(tmp_path, 60, 20))
    assert houses.train_features.shape == (60, len(houses.columns)) and houses.test_features.shape[0] == 20
    assert torch.isfinite(houses.train_features).all()
    assert {"GrLivArea", "MasVnrType_None", "MasVnrType_nan"} <= set(houses.columns)
    errors = d2l.k_fold(3, houses.train_features, houses.train_labels, 40, 200.0, 0.0, 16)
    assert all(0 < error < 1 for error in errors)
    assert capsys.readouterr().out.count("fold ") == 3
    path = tmp_path / "submission.csv"
    settings = (5, 200.0, 0.0, 16)
    d2l.train_and_pred(
        houses.train_features, houses.test_features, houses.train_labels, houses.test_data, *settings, path=path
    )
    lines = path.read_text().splitlines()
    assert lines[0] == "Id,SalePrice" and len(lines) == 21 and math.isfinite(float(lines[1].split(",")[1]))


def test_house_files_that_do_not_belong_together_are_said(tmp_path):
    train, test = d2l.generate_houses(tmp_path, 10, 5)
    with pytest.raises(DataError, match=r"to have the columns of .* but these differ: SalePrice"):
        d2l.load_houses(train, train)
    with pytest.raises(ValueError, match="expected numeric to name columns"):
        d2l.load_houses(test, test)


def test_folds_are_disjoint_and_in_order():
    X, y = torch.arange(11.0).reshape(-1, 1), torch.arange(11.0)
    X_train, y_train, X_valid, y_valid = d2l.get_k_fold_data(5, 1, X, y)
    assert y_valid.tolist() == [2, 3] and y_train.tolist() == [0, 1, 4, 5, 6, 7, 8, 9]
    assert torch.equal(X_train.flatten(), y_train) and torch.equal(X_valid.flatten(), y_valid)


def test_downloads_come_from_the_folder_first_and_say_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("D2LKERNELS_DOWNLOAD", "0")
    monkeypatch.setenv("D2LKERNELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    content = b"a,b\n1,2\n"
    monkeypatch.setitem(
        d2l.DATA_HUB, "small", ("http://127.0.0.1:1/files/small.csv", "da39a3ee5e6b4b0d3255bfef95601890afd80709")
    )
    with pytest.raises(RuntimeError, match=r"small.csv is not on this machine .*D2LKERNELS_DOWNLOAD=0.*Get it from"):
        d2l.download("small")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "small.csv").write_bytes(content)
    with pytest.raises(RuntimeError, match="not on this machine"):  # the sum is another one
        d2l.download("small")
    (tmp_path / "data" / "small.csv").write_bytes(b"")
    assert Path(d2l.download("small")) == Path("data") / "small.csv"
    assert d2l.download("small", cache_dir=tmp_path / "data") == str(tmp_path / "data" / "small.csv")


def test_a_download_that_fails_says_how_often_it_was_tried(monkeypatch, tmp_path):
    monkeypatch.setenv("D2LKERNELS_DOWNLOAD", "1")
    monkeypatch.setattr("d2lkernels.d2l.downloads.time.sleep", lambda seconds: None)
    monkeypatch.setitem(d2l.DATA_HUB, "small", ("http://127.0.0.1:1/small.csv", "0" * 40))
    with pytest.raises(RuntimeError, match=r"asked 3 times.*Get it from http://127.0.0.1:1/small.csv"):
        d2l.download("small", cache_dir=tmp_path)


def test_archives_are_unpacked_inside_their_folder_only(monkeypatch, tmp_path):
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as file:
        file.writestr("good/a.txt", "hello")
    with tarfile.open(tmp_path / "bad.tar", "w") as file:
        member = tarfile.TarInfo("../escaped.txt")
        member.size = 2
        file.addfile(member, io.BytesIO(b"hi"))
    (tmp_path / "no.txt").write_text("text")
    for name in ("good.zip", "bad.tar", "no.txt"):
        checksum = hashlib.sha1((tmp_path / name).read_bytes()).hexdigest()
        monkeypatch.setitem(d2l.DATA_HUB, name, (f"http://127.0.0.1:1/{name}", checksum))
    monkeypatch.setattr("d2lkernels.d2l.downloads.BOOK_FOLDER", tmp_path)
    assert Path(d2l.download_extract("good.zip")) == tmp_path / "good"
    assert (tmp_path / "good" / "a.txt").read_text() == "hello"
    with pytest.raises(DataError, match="cannot be unpacked"):
        d2l.download_extract("bad.tar")
    assert not (tmp_path.parent / "escaped.txt").exists()
    with pytest.raises(DataError, match="zip or tar file"):
        d2l.download_extract("no.txt")
