"""Section 2.4: calculus: the derivative as a limit, a tangent, partial derivatives and the chain rule, checked."""

import torch

from d2lkernels.d2l.example import run_script


def f(x):
    return 3 * x**2 - 4 * x


def quotient(function, x, h):
    """Slope of the secant from x to x + h."""
    return (function(x + h) - function(x)) / h


def main(example):
    h, slopes = 0.1, []
    for _ in range(5):
        slopes.append(quotient(f, 1.0, h))
        print(f"h = {h:.5f}, slope = {slopes[-1]:.5f}")
        h /= 10
    x = torch.arange(0, 3, 0.1)
    example.plot("tangent", x, [f(x), 2 * x - 3], "x", "f(x)", legend=["f(x)", "tangent at x = 1"])

    # Partial derivatives: one number changes, the others rest. In double precision a central quotient is good to 1e-9.
    def g(v):
        return 3 * v[0] ** 2 + 5 * torch.exp(v[1])

    point = torch.tensor([1.0, 0.5], dtype=torch.float64)
    steps = 1e-6 * torch.eye(2, dtype=torch.float64)
    numerical = torch.stack([(g(point + step) - g(point - step)) / 2e-6 for step in steps])
    by_hand = torch.stack([6 * point[0], 5 * torch.exp(point[1])])
    print("gradient by limits", numerical.tolist(), "by hand", by_hand.tolist())

    # The chain rule: d/dt sin(t^2) = 2 t cos(t^2).
    t = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    torch.sin(t**2).backward()
    chain = 2 * t.detach() * torch.cos(t.detach() ** 2)
    return {
        "slope": slopes[-1],
        "gradient_error": (numerical - by_hand).abs().max(),
        "chain_rule_error": (t.grad - chain).abs(),
    }


if __name__ == "__main__":
    run_script(main)
