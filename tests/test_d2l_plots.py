"""Plots: in a script, in a notebook, to files."""

from __future__ import annotations

import pytest
import torch

from d2lkernels import d2l


def test_an_animator_keeps_prints_and_saves(capsys, tmp_path):
    d2l.save_figures(tmp_path)
    try:
        animator = d2l.Animator(xlabel="epoch", legend=["loss", "acc"], xlim=[1, 2])
        for epoch in range(2):
            animator.add(epoch + 0.5, (torch.tensor(1.0, requires_grad=True), None))
            animator.add(epoch + 1.0, (0.5, None))
            animator.add(epoch + 1, (None, 0.75 + epoch / 100))
        animator.add(3, (0.001, None))
        animator.finish()
    finally:
        d2l.save_figures(None)
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1: loss 0.500, acc 0.750",
        "epoch 2: loss 0.500, acc 0.760",
        "epoch 3: loss 1.00e-03",
    ]
    assert animator.X == [[0.5, 1.0, 1.5, 2.0, 3], [1, 2]]
    assert (tmp_path / "01-training.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "01-training.csv").read_text().splitlines()[:2] == ["epoch,curve,value", "0.5,loss,1.0"]


def test_plot_takes_the_books_forms(tmp_path):
    x = torch.arange(0.0, 3, 0.1, requires_grad=True)
    axes = d2l.plt.figure().gca()
    d2l.plot(x, [3 * x**2 - 4 * x, 2 * x - 3], "x", "f(x)", legend=["f(x)", "tangent"], axes=axes)
    assert len(axes.lines) == 2 and axes.get_xlabel() == "x" and len(axes.get_legend().texts) == 2
    for arguments, count in (((x.detach().numpy(),), 1), (([1, 2, 3], [4, 5, 6]), 1), (([[1, 2], [1, 2, 3]],), 2)):
        d2l.plot(*arguments, axes=axes)
        assert len(axes.lines) == count
    d2l.set_figsize((4, 3))
    assert d2l.plt.rcParams["figure.figsize"] == [4, 3]
    d2l.plt.close("all")


def test_show_images_takes_tensors_and_arrays():
    axes = d2l.show_images(torch.rand(4, 1, 5, 5), 2, 3, titles=["a", "b", "c", "d"])
    assert [cell.get_title() for cell in axes] == ["a", "b", "c", "d", "", ""]
    d2l.show_images([torch.rand(5, 5).numpy(), torch.rand(5, 5, 3)], 1, 2)
    d2l.plt.close("all")


NOTEBOOK = """
from d2lkernels import d2l, nn
animator = d2l.Animator(xlabel="epoch", legend=["loss"])
for epoch in range(3):
    animator.add(epoch + 1, 1 / (epoch + 1))
animator.finish()
"""


def test_a_notebook_sees_a_live_figure():
    manager = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    shown, printed = [], []

    def collect(message):
        if message["msg_type"] == "display_data":
            shown.append(message["content"]["data"])
        elif message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    try:
        reply = client.execute_interactive(NOTEBOOK, output_hook=collect, timeout=60)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok", reply["content"].get("evalue")
    assert len([data for data in shown if "image/svg+xml" in data]) >= 3
    assert not printed
