"""Section 5.1: layers and blocks: a block of one's own, a sequence, Python in the forward pass, blocks in blocks."""

import torch

from d2lkernels import d2l, nn
from d2lkernels.d2l.example import run_script


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(20, 256), nn.Linear(256, 10)

    def forward(self, X):
        return self.out(nn.functional.relu(self.hidden(X)))


class FixedHiddenMLP(nn.Module):
    """With a constant that does not learn, a layer that is used twice, and a loop."""

    def __init__(self):
        super().__init__()
        self.register_buffer("constant", torch.rand(20, 20))
        self.linear = nn.Linear(20, 20)

    def forward(self, X):
        X = self.linear(X)
        X = nn.functional.relu(X @ self.constant + 1)
        X = self.linear(X)
        while X.abs().sum() > 1:
            X = X / 2
        return X.sum()


class NestMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.linear = nn.Linear(32, 16)

    def forward(self, X):
        return self.linear(self.net(X))


def main(example):
    X = torch.rand(2, 20)
    sequence = d2l.MySequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 10))
    native = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 10))
    native.load_state_dict(sequence.state_dict())
    print("a block", tuple(MLP()(X).shape), "our sequence", tuple(sequence(X).shape))
    chimera = nn.Sequential(NestMLP(), nn.Linear(16, 20), FixedHiddenMLP())
    output = chimera(X)
    output.backward()
    learning = [name for name, parameter in chimera.named_parameters() if parameter.grad is not None]
    print(chimera)
    return {
        "sequences_agree": torch.equal(sequence(X), native(X)),
        "chimera": output,
        "learning_parameters": len(learning),
        "constant_learns": chimera[2].constant.requires_grad,
    }


if __name__ == "__main__":
    run_script(main)
