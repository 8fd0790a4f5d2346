"""Section 2.1: tensors: making them, arithmetic, broadcasting, indexing, memory, and the way to NumPy and back."""

import torch

from d2lkernels import d2l
from d2lkernels.d2l.example import run_script


def main(example):
    x = torch.arange(12)
    X = x.reshape(3, 4)
    print("x has", x.numel(), "elements; reshaped:", tuple(X.shape), "shares its memory:", x.data_ptr() == X.data_ptr())

    a, b = torch.tensor([1.0, 2, 4, 8]), torch.tensor([2.0, 2, 2, 2])
    for name, value in {"+": a + b, "-": a - b, "*": a * b, "/": a / b, "**": a**b, "exp": a.exp()}.items():
        print(f"{name:4}", value.tolist())

    X, Y = X.float(), torch.tensor([[2.0, 1, 4, 3], [1, 2, 3, 4], [4, 3, 2, 1]])
    rows, columns = torch.cat((X, Y), dim=0), torch.cat((X, Y), dim=1)
    print("concatenated:", tuple(rows.shape), tuple(columns.shape), "equal elements:", int((X == Y).sum()))

    column, row = torch.arange(3).reshape(3, 1), torch.arange(2).reshape(1, 2)
    print("broadcast (3, 1) + (1, 2):", (column + row).tolist())

    print("last row", X[-1].tolist(), "rows 1 and 2", X[1:3].tolist())
    X[1, 2] = 9
    X[0:2, :] = 12
    print("after writing:", X.tolist())

    before = id(Y)
    Y = Y + X  # a new tensor
    new_memory = id(Y) != before
    Z = torch.zeros_like(Y)
    before = Z.data_ptr()
    Z[:] = X + Y  # into the old one
    Z += X
    in_place = Z.data_ptr() == before
    array = d2l.numpy(X)
    back = torch.from_numpy(array)
    print("to", type(array).__name__, "and back, same memory:", back.data_ptr() == X.data_ptr(), "item:", a[1].item())
    return {"sum": X.sum().item(), "new_memory": new_memory, "in_place": in_place}


if __name__ == "__main__":
    run_script(main)
