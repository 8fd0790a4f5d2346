"""Section 5.2: parameters: reaching them, initialising them, sharing them."""

import torch

from d2lkernels import nn
from d2lkernels.d2l.example import run_script


def block1():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU())


def block2():
    net = nn.Sequential()
    for i in range(4):
        net.add_module(f"block {i}", block1())
    return net


def init_normal(m):
    if type(m) == nn.Linear:  # noqa: E721  (as in the book; it holds for our classes)
        nn.init.normal_(m.weight, mean=0, std=0.01)
        nn.init.zeros_(m.bias)


def init_xavier(m):
    if isinstance(m, nn.Linear):
        nn.init.xavier_uniform_(m.weight)


def init_42(m):
    if isinstance(m, nn.Linear):
        nn.init.constant_(m.weight, 42)


def my_init(m):
    """Uniform on (-10, 10), and zero where that is smaller than 5."""
    if isinstance(m, nn.Linear):
        nn.init.uniform_(m.weight, -10, 10)
        m.weight.data *= m.weight.data.abs() >= 5


def main(example):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    X = torch.rand(2, 4)
    net(X)
    print(net[2].state_dict().keys(), net[2].bias.data, "gradient so far:", net[2].weight.grad)
    print(*[(name, tuple(parameter.shape)) for name, parameter in net.named_parameters()])
    rgnet = nn.Sequential(block2(), nn.Linear(4, 1))
    rgnet(X)
    print(rgnet, "first bias of the second block:", rgnet[0][1][0].bias.data)

    net.apply(init_normal)
    deviation = net[0].weight.std().item()
    net[0].apply(init_xavier)
    net[2].apply(init_42)
    print(net[0].weight.data[0], net[2].weight.data)
    net.apply(my_init)
    zeros = (net[0].weight == 0).float().mean().item()

    shared = nn.Linear(8, 8)
    tied = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(8, 1))
    tied(X).sum().backward()
    tied[2].weight.data[0, 0] = 100
    same = torch.equal(tied[2].weight, tied[4].weight)
    return {
        "parameters": sum(parameter.numel() for parameter in rgnet.parameters()),
        "normal_deviation": deviation,
        "share_of_zeros": zeros,
        "tied": same,
        "tied_parameter_tensors": len(list(tied.parameters())),
    }


if __name__ == "__main__":
    run_script(main)
