"""Section 3.6: softmax regression from scratch on Fashion-MNIST."""

import torch

from d2lkernels import d2l
from d2lkernels.d2l.example import measurements, run_script


def main(example):
    settings = example.settings("softmax_regression")
    train_iter, test_iter = example.fashion_mnist(settings.batch_size)
    W = torch.normal(0, 0.01, size=(784, 10), device=example.device, requires_grad=True)
    b = torch.zeros(10, device=example.device, requires_grad=True)

    def net(X):
        return d2l.softmax(X.reshape(-1, len(W)) @ W + b)

    def updater(batch_size):
        d2l.sgd([W, b], settings.lr, batch_size)

    result = d2l.train_ch3(net, train_iter, test_iter, d2l.cross_entropy, settings.epochs, updater)
    example.curves("training", result.animator)
    example.predictions(net, test_iter)
    return measurements(result)


if __name__ == "__main__":
    run_script(main)
