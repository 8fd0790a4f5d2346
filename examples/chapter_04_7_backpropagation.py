"""Section 4.7: forward and backward propagation of a network with one hidden layer, by hand and by autograd."""

import torch

from d2lkernels.d2l.example import run_script


def main(example):
    dtype, lambd = torch.float64, 0.1
    x, y = torch.randn(5, dtype=dtype), torch.randn(3, dtype=dtype)
    W1 = torch.randn(4, 5, dtype=dtype, requires_grad=True)
    W2 = torch.randn(3, 4, dtype=dtype, requires_grad=True)

    # Forward: the values that the way back needs are kept.
    z = W1 @ x
    h = z.relu()
    o = W2 @ h
    loss = (o - y).square().sum() / 2
    penalty = lambd / 2 * (W1.square().sum() + W2.square().sum())
    objective = loss + penalty

    # Backward: from the objective to the weights, in the opposite order.
    with torch.no_grad():
        d_o = o - y
        d_W2 = torch.outer(d_o, h) + lambd * W2
        d_h = W2.T @ d_o
        d_z = d_h * (z > 0)
        d_W1 = torch.outer(d_z, x) + lambd * W1
    objective.backward()
    errors = [(by_hand - W.grad).abs().max() for by_hand, W in ((d_W1, W1), (d_W2, W2))]
    print("objective", objective.item(), "by hand and by autograd differ by", [error.item() for error in errors])
    return {"objective": objective, "largest_difference": max(errors)}


if __name__ == "__main__":
    run_script(main)
