"""Section 4.1: activation functions and their gradients: ReLU, sigmoid, tanh."""

import torch

from d2lkernels import nn
from d2lkernels.d2l.example import run_script


def main(example):
    measured = {}
    for name, layer in {"relu": nn.ReLU(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh()}.items():
        x = torch.arange(-8.0, 8.0, 0.1, requires_grad=True)
        y = layer(x)
        y.sum().backward()
        example.plot(name, x, [y, x.grad], "x", legend=[f"{name}(x)", "gradient"])
        measured[f"{name}_largest_gradient"] = x.grad.max()
        measured[f"{name}_gradient_at_8"] = x.grad[-1]
    # Without an activation two layers are one.
    first, second, X = nn.Linear(5, 4), nn.Linear(4, 3), torch.randn(10, 5)
    W, b = second.weight @ first.weight, second.weight @ first.bias + second.bias
    measured["two_layers_are_one_to"] = (second(first(X)) - (X @ W.T + b)).abs().max()
    return measured


if __name__ == "__main__":
    run_script(main)
