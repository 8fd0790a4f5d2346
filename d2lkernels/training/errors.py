"""The errors that a user can cause and mend; the command line shows their text alone."""


class TrainingError(RuntimeError):
    """Training cannot start or go on. The message says why and what to do."""


class CheckpointError(TrainingError):
    """A checkpoint is missing, damaged, or belongs to another training."""
