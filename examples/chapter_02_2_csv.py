"""Section 2.2: data preprocessing: a CSV file with missing values becomes a tensor, the same on pandas 2 and 3."""

import tempfile
from pathlib import Path

import torch

from d2lkernels import d2l
from d2lkernels.d2l.example import run_script

TABLE = """\
NumRooms,Alley,Price
NA,Pave,127500
2,NA,106000
4,NA,178100
NA,NA,140000
"""


def main(example):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "house_tiny.csv"
        path.write_text(TABLE)
        frame = d2l.read_csv(path)
    print(frame)
    inputs, outputs = frame[["NumRooms", "Alley"]], frame["Price"]

    # The mean stands in for missing numbers; a missing category is a category.
    X, columns = d2l.frame_to_tensor(inputs)
    y = torch.tensor(outputs.to_numpy(dtype="float32"))
    print(columns, X.tolist(), y.tolist(), sep="\n")

    # Exercise: the column with the most missing values goes.
    emptiest = inputs.isna().sum().idxmax()
    kept, kept_columns = d2l.frame_to_tensor(inputs.drop(columns=emptiest))
    print(f"without {emptiest}:", kept_columns, kept.tolist())
    return {"rows": len(X), "columns": columns, "filled_in": X[0, 0], "dropped": emptiest}


if __name__ == "__main__":
    run_script(main)
