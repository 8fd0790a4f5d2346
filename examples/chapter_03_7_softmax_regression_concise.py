"""Section 3.7: softmax regression on Fashion-MNIST with the framework; the softmax is in the loss."""

import torch

from d2lkernels import d2l, nn
from d2lkernels.d2l.example import measurements, run_script


def main(example):
    settings = example.settings("softmax_regression")
    train_iter, test_iter = example.fashion_mnist(settings.batch_size)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).to(example.device)
    net.apply(d2l.init_weights)
    loss = nn.CrossEntropyLoss(reduction="none")
    optimizer = torch.optim.SGD(net.parameters(), lr=settings.lr)
    result = d2l.train_ch3(net, train_iter, test_iter, loss, settings.epochs, optimizer)
    example.curves("training", result.animator)
    example.predictions(net, test_iter)
    return measurements(result)


if __name__ == "__main__":
    run_script(main)
