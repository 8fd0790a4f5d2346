"""Section 3.1: linear regression: why vectors beat loops, and the normal distribution behind the squared loss."""

import math

import torch

from d2lkernels import d2l
from d2lkernels.d2l.example import run_script


def normal(x, mu, sigma):
    return torch.exp(-0.5 * ((x - mu) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))


def main(example):
    n = example.choose(10_000, 100)
    a, b, c = torch.ones(n), torch.ones(n), torch.zeros(n)
    timer = d2l.Timer()
    for i in range(n):
        c[i] = a[i] + b[i]
    loop = timer.stop()
    timer.start()
    d = a + b
    vector = timer.stop()
    print(f"{n} sums: loop {loop:.5f} s, vector {vector:.5f} s, equal: {torch.equal(c, d)}")

    x = torch.arange(-7, 7, 0.01)
    parameters = [(0, 1), (0, 2), (3, 1)]
    curves = [normal(x, mu, sigma) for mu, sigma in parameters]
    example.plot("normal", x, curves, "x", "p(x)", legend=[f"mean {mu}, deviation {sigma}" for mu, sigma in parameters])

    # Maximum likelihood under normal noise is least squares: both have their optimum at the mean.
    y = torch.randn(200) + 3
    candidates = torch.linspace(2, 4, 2001)
    likelihood = torch.stack([-normal(y, mu, 1).log().sum() for mu in candidates])
    squares = (y[None] - candidates[:, None]).square().sum(dim=1)
    return {
        "loop_seconds": loop,
        "vector_seconds": vector,
        "ratio": loop / vector,
        "areas": [curve.sum() * 0.01 for curve in curves],
        "optimum_of_likelihood": candidates[likelihood.argmin()],
        "optimum_of_squares": candidates[squares.argmin()],
    }


if __name__ == "__main__":
    run_script(main)
