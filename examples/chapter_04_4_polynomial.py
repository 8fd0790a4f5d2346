"""Section 4.4: underfitting and overfitting: polynomials of degree 3, 1 and 19 on data of degree 3."""

import math

import torch

from d2lkernels import d2l, nn
from d2lkernels.d2l.example import run_script

DEGREES, TRAIN, TEST = 20, 100, 100
TRUE_W = torch.zeros(DEGREES)
TRUE_W[:4] = torch.tensor([5, 1.2, -3.4, 5.6])


def train(train_features, test_features, train_labels, test_labels, num_epochs):
    net = nn.Sequential(nn.Linear(train_features.shape[1], 1, bias=False))
    loss = nn.MSELoss(reduction="none")
    train_iter = d2l.load_array((train_features, train_labels), min(10, len(train_features)))
    test_iter = d2l.load_array((test_features, test_labels), len(test_features), is_train=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    animator = d2l.Animator(
        xlabel="epoch", ylabel="loss", yscale="log", xlim=[1, num_epochs], ylim=[1e-3, 1e2], legend=["train", "test"]
    )
    for epoch in range(num_epochs):
        for X, y in train_iter:
            optimizer.zero_grad()
            loss(net(X), y).mean().backward()
            optimizer.step()
        if epoch == 0 or (epoch + 1) % max(20, num_epochs // 10) == 0:
            errors = (d2l.evaluate_loss(net, train_iter, loss), d2l.evaluate_loss(net, test_iter, loss))
            animator.add(epoch + 1, errors)
    animator.finish()
    return net[0].weight.detach().flatten(), animator


def main(example):
    x = torch.randn(TRAIN + TEST, 1)
    powers = torch.arange(DEGREES)
    features = x**powers / torch.tensor([float(math.factorial(power)) for power in powers])
    labels = (features @ TRUE_W + 0.1 * torch.randn(TRAIN + TEST)).reshape(-1, 1)
    measured = {}
    for name, count, epochs in (("fitting", 4, 400), ("underfitting", 2, 400), ("overfitting", DEGREES, 1500)):
        print(f"{name}: {count} features")
        data = (features[:TRAIN, :count], features[TRAIN:, :count], labels[:TRAIN], labels[TRAIN:])
        weights, animator = train(*data, example.choose(epochs, 20))
        example.curves(name, animator)
        measured[f"{name}_loss"] = [animator.Y[0][-1], animator.Y[1][-1]]
        if name == "fitting":
            measured["weights"] = weights
    return measured


if __name__ == "__main__":
    run_script(main)
