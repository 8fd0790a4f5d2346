"""Section 3.3: linear regression with the layers, losses and optimizers of the framework."""

import torch

from d2lkernels import d2l, nn
from d2lkernels.d2l.example import run_script


def main(example):
    true_w, true_b = torch.tensor([2, -3.4]), 4.2
    features, labels = d2l.synthetic_data(true_w, true_b, 1000)
    batches = d2l.load_array((features, labels), batch_size=10)
    net = nn.Sequential(nn.Linear(2, 1))
    net[0].weight.data.normal_(0, 0.01)
    net[0].bias.data.fill_(0)
    loss = nn.MSELoss()  # without the half of section 3.2: twice its value
    optimizer = torch.optim.SGD(net.parameters(), lr=0.03)
    animator = d2l.Animator(xlabel="epoch", legend=["loss"], yscale="log")
    for epoch in range(example.choose(3, 1)):
        for X, y in batches:
            optimizer.zero_grad()
            loss(net(X), y).backward()
            optimizer.step()
        with torch.no_grad():
            value = loss(net(features), labels)
        animator.add(epoch + 1, value)
    animator.finish()
    return {
        "loss": value,
        "w_error": (true_w - net[0].weight.detach().flatten()).abs().max(),
        "b_error": (true_b - net[0].bias.detach()).abs().max(),
    }


if __name__ == "__main__":
    run_script(main)
