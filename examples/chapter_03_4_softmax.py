"""Section 3.4: the softmax, the cross-entropy loss and its gradient, entropy and surprise."""

import torch

from d2lkernels import d2l
from d2lkernels.d2l.example import run_script


def main(example):
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, 1, 1])
    one_hot = torch.nn.functional.one_hot(labels, 3)
    probabilities = d2l.softmax(logits)
    loss = d2l.cross_entropy(probabilities, labels)
    print("probabilities", probabilities.tolist(), "sums", probabilities.sum(dim=1).tolist())
    loss.sum().backward()
    gradient_error = (logits.grad - (probabilities - one_hot).detach()).abs().max()
    print("the gradient is probability minus truth, to", gradient_error.item())

    # exp overflows, log of a zero is infinite; from the logits both can be avoided.
    large = torch.tensor([[1000.0, 0.0, -1000.0]])
    naive = large.exp() / large.exp().sum(dim=1, keepdim=True)
    stable = torch.nn.functional.cross_entropy(large, torch.tensor([1]))
    print("naive:", naive.tolist(), "stable loss:", stable.item())

    p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([1.0, 1.0, 1.0]) / 3
    entropy, cross = -(p * p.log2()).sum(), -(p * q.log2()).sum()
    return {
        "gradient_error": gradient_error,
        "naive_is_nan": bool(naive.isnan().any()),
        "stable_loss": stable,
        "entropy_bits": entropy,
        "cross_entropy_bits": cross,
    }


if __name__ == "__main__":
    run_script(main)
