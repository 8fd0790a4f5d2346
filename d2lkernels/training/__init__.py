"""Training of the book's models on Fashion-MNIST, with our layers, native torch, or both side by side."""

from .errors import CheckpointError, TrainingError
from .history import Epoch, History, comparison_table, draw_curves, write_csv
from .session import Interrupt, Result, train
from .trainer import TrainConfig, Trainer

__all__ = [
    "CheckpointError",
    "Epoch",
    "History",
    "Interrupt",
    "Result",
    "TrainConfig",
    "Trainer",
    "TrainingError",
    "comparison_table",
    "draw_curves",
    "train",
    "write_csv",
]
