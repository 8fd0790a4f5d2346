"""Section 4.3: a multilayer perceptron on Fashion-MNIST with the layers of the framework."""

import torch

from d2lkernels import d2l, nn
from d2lkernels.d2l.example import measurements, run_script


def main(example):
    settings = example.settings("mlp")
    train_iter, test_iter = example.fashion_mnist(settings.batch_size)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10)).to(example.device)
    net.apply(d2l.init_weights)
    loss = nn.CrossEntropyLoss(reduction="none")
    optimizer = torch.optim.SGD(net.parameters(), lr=settings.lr)
    result = d2l.train_ch3(net, train_iter, test_iter, loss, settings.epochs, optimizer)
    example.curves("training", result.animator)
    example.predictions(net, test_iter)
    return measurements(result)


if __name__ == "__main__":
    run_script(main)
