"""Section 6.2: cross-correlation, edges in an image, and a kernel that is learned from what it should find."""

import torch

from d2lkernels import d2l, nn
from d2lkernels.d2l.example import run_script


def loops(X, K):
    """What a cross-correlation is, written out."""
    h, w = K.shape
    Y = torch.zeros(X.shape[0] - h + 1, X.shape[1] - w + 1)
    for i in range(Y.shape[0]):
        for j in range(Y.shape[1]):
            Y[i, j] = (X[i : i + h, j : j + w] * K).sum()
    return Y


def main(example):
    X, K = torch.arange(9.0).reshape(3, 3), torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    print("corr2d:", d2l.corr2d(X, K).tolist())
    size = example.choose(96, 16)
    large, K = torch.rand(size, size), torch.rand(3, 3)
    timer = d2l.Timer()
    expected = loops(large, K)
    loop_seconds = timer.stop()
    timer.start()
    error = (d2l.corr2d(large, K) - expected).abs().max()
    kernel_seconds = timer.stop()

    X = torch.ones(6, 8)
    X[:, 2:6] = 0
    edge = torch.tensor([[1.0, -1.0]])
    Y = d2l.corr2d(X, edge)
    example.images("edges", [X, Y], 1, 2, ["image", "vertical edges"])
    across = d2l.corr2d(X.T, edge).abs().sum()  # the kernel does not see horizontal edges

    conv2d = nn.Conv2d(1, 1, kernel_size=(1, 2), bias=False)
    X, Y, lr = X.reshape(1, 1, 6, 8), Y.reshape(1, 1, 6, 7), 3e-2
    animator = d2l.Animator(xlabel="step", legend=["loss"], yscale="log")
    for step in range(10):
        loss = (conv2d(X) - Y).square()
        conv2d.zero_grad()
        loss.sum().backward()
        conv2d.weight.data -= lr * conv2d.weight.grad
        if (step + 1) % 2 == 0:
            animator.add(step + 1, loss.sum())
    animator.finish()
    example.curves("learning", animator)
    return {
        "kernel": conv2d.weight.flatten(),
        "loss": loss.sum(),
        "horizontal_edges_seen": across,
        "error_against_loops": error,
        "loop_seconds": loop_seconds,
        "kernel_seconds": kernel_seconds,
    }


if __name__ == "__main__":
    run_script(main)
