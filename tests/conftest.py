"""Each test runs on its device, in that device's configuration, and leaves torch's global state as it was."""

from __future__ import annotations

import contextlib

import pytest
import torch

# Of problems as small as these two threads only make a busy machine wait; tests that are about threads set their own.
torch.set_num_threads(1)


def pytest_configure(config):
    # Native torch's words about its own way with even kernels.
    config.addinivalue_line("filterwarnings", "ignore:Using padding='same' with even kernel:UserWarning")


@pytest.fixture(autouse=True)
def on_its_device(request):
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    device = parameters.get("device")
    threads = torch.get_num_threads()
    precisions = [
        (backend, backend.fp32_precision) for backend in (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    ]
    with device.active() if device is not None else contextlib.nullcontext():
        yield
    torch.set_num_threads(threads)
    for backend, precision in precisions:
        backend.fp32_precision = precision
