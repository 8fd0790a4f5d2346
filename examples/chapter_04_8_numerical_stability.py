"""Section 4.8: vanishing and exploding gradients, symmetry, and what Xavier's initialisation does about them."""

import torch

from d2lkernels import nn
from d2lkernels.d2l.example import run_script


def signal_and_gradient(depth, width, initialize):
    """Deviation of the activations after `depth` tanh layers, and of the gradient that comes back to the input."""
    X = torch.randn(64, width, requires_grad=True)
    H = X
    for _ in range(depth):
        layer = nn.Linear(width, width, bias=False)
        initialize(layer.weight)
        H = torch.tanh(layer(H))
    (H * torch.randn_like(H)).sum().backward()
    return H.std().item(), X.grad.std().item()


def main(example):
    x = torch.arange(-8.0, 8.0, 0.1, requires_grad=True)
    y = torch.sigmoid(x)
    y.sum().backward()
    example.plot("sigmoid", x, [y, x.grad], "x", legend=["sigmoid", "gradient"])

    M = torch.normal(0, 1, size=(4, 4), dtype=torch.float64)
    for _ in range(100):
        M = M @ torch.normal(0, 1, size=(4, 4), dtype=torch.float64)
    print("product of a hundred matrices:", M[0].tolist())

    # Equal weights stay equal: the hidden units never become different.
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    data = torch.randn(32, 4)
    for _ in range(10):
        optimizer.zero_grad()
        (net(data) - data[:, :1]).square().mean().backward()
        optimizer.step()
    symmetric = bool((net[0].weight == net[0].weight[0]).all())

    width = example.choose(256, 32)
    initializers = {
        "small": lambda w: nn.init.normal_(w, std=0.01),
        "large": lambda w: nn.init.normal_(w, std=1.0),
        "xavier": nn.init.xavier_uniform_,
    }
    measured = {"matrix_product": M.abs().max(), "sigmoid_gradient_at_8": x.grad[-1], "stays_symmetric": symmetric}
    for name, initialize in initializers.items():
        signal, gradient = signal_and_gradient(20, width, initialize)
        print(f"{name:7} activations {signal:.2e}, gradient {gradient:.2e} after 20 layers")
        measured[f"{name}_signal"], measured[f"{name}_gradient"] = signal, gradient
    return measured


if __name__ == "__main__":
    run_script(main)
