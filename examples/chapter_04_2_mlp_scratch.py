"""Section 4.2: a multilayer perceptron from scratch on Fashion-MNIST."""

import torch

from d2lkernels import d2l, nn
from d2lkernels.d2l.example import measurements, run_script

NUM_INPUTS, NUM_HIDDENS, NUM_OUTPUTS = 784, 256, 10


def main(example):
    settings = example.settings("mlp")
    train_iter, test_iter = example.fashion_mnist(settings.batch_size)

    def weight(inputs, outputs):
        return nn.Parameter(0.01 * torch.randn(inputs, outputs, device=example.device))

    W1, b1 = weight(NUM_INPUTS, NUM_HIDDENS), nn.Parameter(torch.zeros(NUM_HIDDENS, device=example.device))
    W2, b2 = weight(NUM_HIDDENS, NUM_OUTPUTS), nn.Parameter(torch.zeros(NUM_OUTPUTS, device=example.device))

    def net(X):
        return d2l.relu(X.reshape(-1, NUM_INPUTS) @ W1 + b1) @ W2 + b2

    loss = nn.CrossEntropyLoss(reduction="none")
    updater = torch.optim.SGD([W1, b1, W2, b2], lr=settings.lr)
    result = d2l.train_ch3(net, train_iter, test_iter, loss, settings.epochs, updater)
    example.curves("training", result.animator)
    example.predictions(net, test_iter)
    return measurements(result)


if __name__ == "__main__":
    run_script(main)
