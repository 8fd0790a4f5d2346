"""Section 3.2: linear regression from scratch: data, batches, model, loss and update written out."""

import torch

from d2lkernels import d2l
from d2lkernels.d2l.example import run_script


def main(example):
    true_w, true_b = torch.tensor([2, -3.4]), 4.2
    features, labels = d2l.synthetic_data(true_w, true_b, 1000)
    if path := example.path("data.png"):
        figure = d2l.require("matplotlib.figure", "--out").Figure(figsize=(5, 3.5))
        figure.subplots().scatter(features[:, 1].tolist(), labels.flatten().tolist(), s=2)
        figure.savefig(path, dpi=110)

    w = torch.normal(0, 0.01, size=(2, 1), requires_grad=True)
    b = torch.zeros(1, requires_grad=True)
    lr, num_epochs, batch_size = 0.03, example.choose(3, 1), 10
    animator = d2l.Animator(xlabel="epoch", legend=["loss"], yscale="log")
    for epoch in range(num_epochs):
        for X, y in d2l.data_iter(batch_size, features, labels):
            d2l.squared_loss(d2l.linreg(X, w, b), y).sum().backward()
            d2l.sgd([w, b], lr, len(X))
        with torch.no_grad():
            loss = d2l.squared_loss(d2l.linreg(features, w, b), labels).mean()
        animator.add(epoch + 1, loss)
    animator.finish()
    return {
        "loss": loss,
        "w_error": (true_w - w.detach().flatten()).abs().max(),
        "b_error": (true_b - b.detach()).abs().max(),
    }


if __name__ == "__main__":
    run_script(main)
