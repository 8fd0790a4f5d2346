"""Section 2.3: linear algebra: scalars to tensors, reductions, products and norms."""

import torch

from d2lkernels.d2l.example import run_script


def main(example):
    A = torch.arange(20.0).reshape(5, 4)
    B = torch.tensor([[1.0, 2, 3], [2, 0, 4], [3, 4, 5]])
    print("transposed:", tuple(A.T.shape), "symmetric:", bool((B == B.T).all()))
    print("Hadamard product equals the squares:", torch.equal(A * A, A**2))

    print("sum", A.sum().item(), "by column", A.sum(dim=0).tolist(), "by row", A.sum(dim=1).tolist())
    print("mean", A.mean().item(), "=", (A.sum() / A.numel()).item())
    shares = A / A.sum(dim=1, keepdim=True)  # broadcasting needs the axis that was summed
    print("rows as shares:", shares.sum(dim=1).tolist(), "running sum, last row:", A.cumsum(dim=0)[-1].tolist())

    x = torch.arange(4.0)
    ones = torch.ones(4)
    print("dot", torch.dot(x, ones).item(), "=", (x * ones).sum().item())
    print("matrix by vector", torch.mv(A, x).tolist())
    product = torch.mm(A, torch.ones(4, 3))
    print("matrix by matrix", tuple(product.shape))

    u = torch.tensor([3.0, -4.0])
    norms = {"l2": u.norm(), "l1": u.abs().sum(), "frobenius": torch.ones(4, 9).norm()}
    return {**norms, "trace_of_product": torch.mm(A.T, A).trace(), "squared_norm": A.square().sum()}


if __name__ == "__main__":
    run_script(main)
