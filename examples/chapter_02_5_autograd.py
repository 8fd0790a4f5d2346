"""Section 2.5: automatic differentiation: reverse and forward accumulation, through our kernels too, agree."""

import torch
from torch.autograd import forward_ad
from torch.func import jacfwd, jacrev

from d2lkernels import nn, ops
from d2lkernels.d2l.example import run_script


def branching(a):
    """Python decides what is computed; the result is a multiple of a all the same."""
    b = a * 2
    while b.norm() < 1000:
        b = b * 2
    return b if b.sum() > 0 else 100 * b


def main(example):
    # Reverse accumulation: one pass back gives the gradient with respect to all inputs.
    x = torch.arange(4.0, requires_grad=True)
    y = 2 * torch.dot(x, x)
    y.backward()
    reverse = x.grad.clone()
    print("gradient of 2 x.x:", reverse.tolist(), "is 4 x:", torch.equal(reverse, 4 * x))

    # Forward accumulation: a dual number carries one direction through the function.
    columns = []
    for direction in torch.eye(4):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x.detach(), direction)
            columns.append(forward_ad.unpack_dual(2 * torch.dot(dual, dual)).tangent)
    forward = torch.stack(columns)

    x.grad.zero_()
    (x * x).sum().backward()  # a vector is summed first
    print("of the elements' squares:", x.grad.tolist())
    x.grad.zero_()
    u = (x * x).detach()  # a constant from here on
    (u * x).sum().backward()
    print("with a detached factor:", torch.equal(x.grad, u))

    a = torch.randn((), requires_grad=True)
    d = branching(a)
    d.backward()
    print("through control flow:", a.grad.item(), "=", (d / a).item())

    # The same through our convolution, pooling and batch normalisation: full Jacobians both ways, in double precision.
    image = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    kernel = torch.randn(2, 1, 3, 3, dtype=torch.float64)

    def network(image, kernel):
        maps = ops.batch_norm(ops.conv2d(image, kernel, padding=1), None, None, training=True)
        return ops.avg_pool2d(nn.functional.relu(maps), 2).flatten()

    errors = []
    for argument in (0, 1):
        backward = jacrev(network, argument)(image, kernel)
        tangents = jacfwd(network, argument)(image, kernel)
        errors.append((backward - tangents).abs().max().item())
        print("Jacobian", tuple(backward.shape), "reverse and forward differ by", errors[-1])
    if not (torch.allclose(forward, reverse) and max(errors) < 1e-9):
        raise AssertionError(f"forward and reverse accumulation differ: {forward}, {reverse}, {errors}")
    return {
        "gradient": reverse,
        "forward_minus_reverse": (forward - reverse).abs().max(),
        "forward_minus_reverse_through_kernels": max(errors),
    }


if __name__ == "__main__":
    run_script(main)
