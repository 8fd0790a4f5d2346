"""Section 4.1: XOR: a perceptron cannot learn it, a multilayer perceptron can."""

import torch

from d2lkernels import d2l, models, nn
from d2lkernels.d2l.example import run_script

X = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
FUNCTIONS = {"and": [-1.0, -1, -1, 1], "or": [-1.0, 1, 1, 1], "xor": [-1.0, 1, 1, -1]}


def train_perceptron(y, epochs):
    """Rosenblatt's rule: a step for each point on the wrong side. Returns the share that is right at best."""
    net = models.build("perceptron")
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    best = 0.0
    for _ in range(epochs):
        for x, target in zip(X, y, strict=True):
            optimizer.zero_grad()
            output = net(x)
            if output * target <= 0:
                (-output * target).sum().backward()
                optimizer.step()
        decisions = torch.where(net(X).flatten() > 0, 1.0, -1.0)
        best = max(best, (decisions == y).float().mean().item())
    return best


def train_mlp(y, epochs):
    net = models.build("mlp", in_channels=2, num_hiddens=8, num_classes=1, activation="tanh")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    loss, animator = nn.SoftMarginLoss(), d2l.Animator(xlabel="epoch", legend=["loss"], yscale="log")
    for epoch in range(epochs):
        optimizer.zero_grad()
        value = loss(net(X).flatten(), y)
        value.backward()
        optimizer.step()
        if (epoch + 1) % 50 == 0:
            animator.add(epoch + 1, value)
    animator.finish()
    return ((net(X).flatten() * y) > 0).float().mean().item(), animator


def main(example):
    measured = {}
    for name, values in FUNCTIONS.items():
        measured[f"perceptron_{name}"] = train_perceptron(torch.tensor(values), example.choose(100, 20))
    measured["mlp_xor"], animator = train_mlp(torch.tensor(FUNCTIONS["xor"]), example.choose(300, 100))
    example.curves("xor", animator)
    return measured


if __name__ == "__main__":
    run_script(main)
