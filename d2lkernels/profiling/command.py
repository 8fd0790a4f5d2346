"""``python -m d2lkernels profile``: the arguments, and what they set going."""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path
from typing import Any

import torch

from .. import models
from ..training import TrainingError
from ..training.options import choose_device, model_option, positive_int
from ..training.trainer import NATIVE, OURS
from .profile import Profile, profile
from .report import Run, print_text, to_csv, to_json, to_text
from .roofline import Roofline

BOTH = "both"
BATCH_SIZE, REPEATS = 16, 5
_ROOFLINE_SECONDS = 0.1

_EPILOG = """\
A row is what runs as one op: where d2lkernels runs neighbours as one, their row has the names of all of them. Every
figure is of the whole batch, apart from "multiply-accumulates of one input".

MMAC       millions of multiply-accumulates of the forward pass (convolutions and matrix products; all else counts 0).
           The backward pass has as many for the weight gradient, and again for the input gradient.
moved MB   what forward and backward pass have to read and write at the least.
saved MB   what stays from the forward to the backward pass, and is not kept by a layer before.
fwd, bwd   median time of the op on its own, where it stands in the forward pass. A whole step also updates the
           parameters, and finds less in the caches.
% roofline the least time that the arithmetic and the memory traffic need, at the rates of this device as measured
           just before, over the time that it took; forward / backward. Winograd's algorithm saves multiplications that
           are counted here, so that it may exceed 100.
algorithm  of convolutions, for the forward pass / input gradient / weight gradient: direct, or the tile of Winograd's
           algorithm; of torch's, the library.

Memory is estimated from parameters, gradients, the optimizer's state and what is saved; workspaces are not counted.
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command to a parser."""
    parser = subparsers.add_parser(
        "profile",
        help="what each layer of a model costs: parameters, arithmetic, memory, time",
        description="Runs a training step of a model of the book layer by layer, on random numbers, and shows what "
        "each layer costs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=f"one of: {', '.join(models.names())}")
    parser.add_argument(
        "--backend", choices=(OURS, "ours", NATIVE, BOTH), default=OURS, help=f"whose layers (default: {OURS})"
    )
    parser.add_argument(
        "--batch-size", type=positive_int, default=BATCH_SIZE, metavar="N", help=f"default: {BATCH_SIZE}"
    )
    parser.add_argument("--image-size", type=positive_int, metavar="N", help="height and width (default: the book's)")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="on the CPU (default: as torch has it)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--repeats", type=positive_int, default=REPEATS, metavar="N", help=f"timings of each layer (default: {REPEATS})"
    )
    parser.add_argument(
        "--option",
        type=model_option,
        action="append",
        metavar="NAME=VALUE",
        help="an option of the model, such as activation=relu or num_convs=6,6; may be repeated",
    )
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="default: table")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of printing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Profiles as the arguments say. Returns the exit code.

    Raises:
        TrainingError, ValueError, TypeError: something in the arguments does not fit.
    """
    spec = models.spec(arguments.model)
    backend = OURS if arguments.backend == "ours" else arguments.backend
    device = choose_device(arguments.device, our_kernels=backend != NATIVE)
    if arguments.image_size is not None and spec.image_size is None:
        raise TrainingError(f"expected --image-size with a model of images, but {spec.name!r} takes vectors")
    if arguments.out is not None:
        _check_writable(arguments.out)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    options = dict(arguments.option or [])
    size = _input_size(spec, arguments.batch_size, arguments.image_size, options)
    book_batch = spec.defaults.batch_size
    batch_sizes = {arguments.batch_size: "", book_batch: " (the book's batch)"}
    runs = []
    roofline = Roofline(device.type, seconds=_ROOFLINE_SECONDS)
    for name in (OURS, NATIVE) if backend == BOTH else (backend,):
        result = _profile(spec, name, size, options, device, arguments.repeats, roofline)
        runs.append(Run(spec.name, name, str(device), torch.get_num_threads(), size, result, batch_sizes))
    if arguments.out is None and arguments.format == "table":
        print_text(runs)
        return 0
    text = {"table": to_text, "csv": to_csv, "json": to_json}[arguments.format](runs)
    if arguments.out is None:
        sys.stdout.write(text)
        return 0
    try:
        arguments.out.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8", newline="")
    except OSError as error:
        raise TrainingError(f"{arguments.out} cannot be written: {error.strerror or error}") from None
    print(arguments.out)
    return 0


def _check_writable(path: Path) -> None:
    """Finds out before anything is measured. A file that is there already stays as it is."""
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise TrainingError(
            f"expected --out {path} to be a file that can be written, but got: {error.strerror or error}"
        ) from None


def _input_size(
    spec: models.ModelSpec, batch_size: int, image_size: int | None, options: dict[str, Any]
) -> tuple[int, ...]:
    """Of a batch for the model: (N, C, H, W), or (N, features) for those that take vectors."""
    usual = inspect.signature(spec.builder).parameters["in_channels"].default
    channels = options.get("in_channels", usual)
    if not models.registry.is_positive_int(channels):
        raise TrainingError(f"expected the option in_channels to be at least 1, but got {channels!r}")
    takes_pixels = usual > 1 and spec.image_size is not None
    if spec.image_size is None or (takes_pixels and channels != usual):
        return batch_size, channels
    if image_size is not None and "image_size" in spec.options():
        options.setdefault("image_size", image_size)
    side = options.get("image_size", image_size or spec.image_size)
    return batch_size, 1 if takes_pixels else channels, side, side


def _profile(
    spec: models.ModelSpec,
    backend: str,
    size: tuple[int, ...],
    options: dict[str, Any],
    device: torch.device,
    repeats: int,
    roofline: Roofline,
) -> Profile:
    namespace: Any = torch.nn
    if backend == OURS:
        from .. import nn as namespace
    torch.manual_seed(0)
    model = spec.initialize(models.build(spec.name, nn=namespace, **options)).to(device)
    try:
        input = torch.rand(size, device=device)
        if input.dim() == 4:
            input = input.contiguous(memory_format=torch.channels_last)
        return profile(model, input, repeats=repeats, roofline=roofline)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        if "allocate memory" in reason:
            raise TrainingError(f"out of memory: a smaller --batch-size than {size[0]:,} needs less") from None
        shape = "x".join(map(str, size))
        raise TrainingError(f"{spec.name} with {backend} does not take an input of {shape}: {reason}") from None
