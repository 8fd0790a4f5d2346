"""Section 4.5: weight decay: 200 inputs and 20 examples, with and without a penalty, from scratch and concise."""

import torch

from d2lkernels import d2l, nn
from d2lkernels.d2l.example import run_script

NUM_INPUTS, TRAIN, TEST, BATCH, LR = 200, 20, 100, 5, 0.003


def new_animator(epochs):
    return d2l.Animator(xlabel="epoch", ylabel="loss", yscale="log", xlim=[5, epochs], legend=["train", "test"])


def train(train_iter, test_iter, lambd, epochs):
    w = torch.normal(0, 1, size=(NUM_INPUTS, 1), requires_grad=True)
    b = torch.zeros(1, requires_grad=True)
    animator = new_animator(epochs)

    def net(X):
        return d2l.linreg(X, w, b)

    for epoch in range(epochs):
        for X, y in train_iter:
            (d2l.squared_loss(net(X), y) + lambd * d2l.l2_penalty(w)).sum().backward()
            d2l.sgd([w, b], LR, BATCH)
        if (epoch + 1) % 20 == 0:
            errors = [d2l.evaluate_loss(net, batches, d2l.squared_loss) for batches in (train_iter, test_iter)]
            animator.add(epoch + 1, errors)
    animator.finish()
    return w.norm(), animator


def train_concise(train_iter, test_iter, weight_decay, epochs):
    net = nn.Sequential(nn.Linear(NUM_INPUTS, 1))
    for parameter in net.parameters():
        parameter.data.normal_()
    loss, animator = nn.MSELoss(reduction="none"), new_animator(epochs)
    groups = [{"params": net[0].weight, "weight_decay": weight_decay}, {"params": net[0].bias}]
    optimizer = torch.optim.SGD(groups, lr=LR)
    for epoch in range(epochs):
        for X, y in train_iter:
            optimizer.zero_grad()
            loss(net(X), y).mean().backward()
            optimizer.step()
        if (epoch + 1) % 20 == 0:
            animator.add(epoch + 1, [d2l.evaluate_loss(net, batches, loss) for batches in (train_iter, test_iter)])
    animator.finish()
    return net[0].weight.norm(), animator


def main(example):
    true_w, true_b = 0.01 * torch.ones(NUM_INPUTS, 1), 0.05
    train_iter = d2l.load_array(d2l.synthetic_data(true_w, true_b, TRAIN), BATCH)
    test_iter = d2l.load_array(d2l.synthetic_data(true_w, true_b, TEST), BATCH, is_train=False)
    measured = {}
    for name, function in (("scratch", train), ("concise", train_concise)):
        for decay in (0, 3):
            print(f"{name}, weight decay {decay}")
            norm, animator = function(train_iter, test_iter, decay, example.choose(100, 20))
            example.curves(f"{name}-{decay}", animator)
            measured[f"{name}_{decay}_norm"] = norm
            measured[f"{name}_{decay}_test_loss"] = animator.Y[1][-1]
    return measured


if __name__ == "__main__":
    run_script(main)
