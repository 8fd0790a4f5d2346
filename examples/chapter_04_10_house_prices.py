"""Section 4.10: house prices: 331 features from two CSV files, k-fold cross-validation, a submission for Kaggle."""

import sys
import tempfile
from pathlib import Path

from d2lkernels import d2l
from d2lkernels.d2l.example import run_script

FILES = ("kaggle_house_pred_train.csv", "kaggle_house_pred_test.csv")


def load(example):
    """The real files: from --data, from this machine, or downloaded. Where they cannot be had, invented houses."""
    if not example.quick:
        if example.data is not None and all((Path(example.data) / name).is_file() for name in FILES):
            example.data_used = "full"
            return d2l.load_houses(*(Path(example.data) / name for name in FILES))
        try:
            paths = d2l.download("kaggle_house_train"), d2l.download("kaggle_house_test")
            example.data_used = "full"
            return d2l.load_houses(*paths)
        except RuntimeError as error:
            print(f"notice: invented houses take the place of the data set: {error}", file=sys.stderr)
    example.data_used = "generated"
    with tempfile.TemporaryDirectory() as folder:
        return d2l.load_houses(*d2l.generate_houses(folder, 100, 20))


def main(example):
    houses = load(example)
    X, y = houses.train_features.to(example.device), houses.train_labels.to(example.device)
    print("features:", tuple(X.shape), "and", tuple(houses.test_features.shape))
    k, num_epochs, lr, weight_decay, batch_size = 5, example.choose(100, 2), 5, 0, 64
    train_error, valid_error = d2l.k_fold(k, X, y, num_epochs, lr, weight_decay, batch_size)
    print(f"{k}-fold validation: mean train log rmse {train_error:.6f}, mean valid log rmse {valid_error:.6f}")
    if path := example.path("submission.csv"):
        test_features = houses.test_features.to(example.device)
        d2l.train_and_pred(X, test_features, y, houses.test_data, num_epochs, lr, weight_decay, batch_size, path=path)
    return {"features": X.shape[1], "train_log_rmse": train_error, "valid_log_rmse": valid_error}


if __name__ == "__main__":
    run_script(main)
