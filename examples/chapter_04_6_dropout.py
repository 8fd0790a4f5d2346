"""Section 4.6: dropout: the layer from scratch, and a perceptron with two of them on Fashion-MNIST."""

import torch

from d2lkernels import d2l, models, nn
from d2lkernels.d2l.example import measurements, run_script


class Net(nn.Module):
    """784-256-256-10 with dropout after each hidden layer, in training only."""

    def __init__(self, dropout1=0.2, dropout2=0.5):
        super().__init__()
        self.dropout1, self.dropout2 = dropout1, dropout2
        self.lin1, self.lin2, self.lin3 = nn.Linear(784, 256), nn.Linear(256, 256), nn.Linear(256, 10)
        self.relu = nn.ReLU()

    def forward(self, X):
        H1 = self.relu(self.lin1(X.reshape(-1, 784)))
        if self.training:
            H1 = d2l.dropout_layer(H1, self.dropout1)
        H2 = self.relu(self.lin2(H1))
        if self.training:
            H2 = d2l.dropout_layer(H2, self.dropout2)
        return self.lin3(H2)


def main(example):
    X = torch.arange(16.0).reshape(2, 8)
    for p in (0.0, 0.5, 1.0):
        print(f"dropout {p}:", d2l.dropout_layer(X, p).tolist())
    ones = d2l.dropout_layer(torch.ones(1000, 1000), 0.5)

    settings = example.settings("mlp_dropout")
    make_optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[settings.optimizer]
    train_iter, test_iter = example.fashion_mnist(settings.batch_size)
    loss = nn.CrossEntropyLoss(reduction="none")
    measured = {"mean_after_dropout": ones.mean(), "share_dropped": (ones == 0).float().mean()}
    concise = models.normal_(models.build("mlp_dropout"))
    for name, net in (("scratch", Net()), ("concise", concise)):
        net.to(example.device)
        optimizer = make_optimizer(net.parameters(), lr=settings.lr)
        result = d2l.train_ch3(net, train_iter, test_iter, loss, settings.epochs, optimizer)
        example.curves(name, result.animator)
        measured.update({f"{name}_{key}": value for key, value in measurements(result).items()})
    return measured


if __name__ == "__main__":
    run_script(main)
