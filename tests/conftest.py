"""Each test runs on its device, in that device's configuration, and leaves torch's global state as it was.

`pytest --outcomes FILE` writes down what became of the tests that are made from specs: op_table.py reads it.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch

from d2lkernels import config as settings

# Of problems as small as these two threads only make a busy machine wait; tests that are about threads set their own.
torch.set_num_threads(1)


_outcomes = []


def pytest_addoption(parser):
    parser.addoption("--outcomes", type=Path, help="write the outcome of each test by op and device to this file")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if "spec" in parameters and "device" in parameters:
        dtype = str(parameters.get("dtype", "")).removeprefix("torch.")
        values = {"test": item.originalname, "op": parameters["spec"].name, "device": parameters["device"].name}
        report.user_properties.append(("outcome", values | {"dtype": dtype}))
    return report


def pytest_runtest_logreport(report):
    if report.when == "call" or report.failed:
        _outcomes.extend(
            values | {"outcome": report.outcome} for name, values in report.user_properties if name == "outcome"
        )


def pytest_sessionfinish(session):
    path = session.config.getoption("--outcomes")
    if path is not None and not hasattr(session.config, "workerinput"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([one for one in _outcomes if one["outcome"] != "skipped"]))


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


@pytest.fixture(params=settings.supported_cpu_capabilities())
def capability(request):
    """For tests that are about the kernels of the CPU alone: they run with each of its instruction sets."""
    before = settings.cpu_capability()
    settings.set_cpu_capability(request.param)
    yield
    settings.set_cpu_capability(before)
