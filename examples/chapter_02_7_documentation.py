"""Section 2.7: documentation: what a module holds, and what a function says about itself."""

import inspect

import torch

from d2lkernels import d2l, nn, ops
from d2lkernels.d2l.example import run_script


def main(example):
    distributions = [name for name in dir(torch.distributions) if not name.startswith("_")]
    print("torch.distributions:", ", ".join(distributions[:8]), "...")
    for name in ops.__all__:
        function = getattr(ops, name)
        print(f"ops.{name}{inspect.signature(function)}\n    {inspect.getdoc(function).splitlines()[0]}")
    help(nn.functional.avg_pool2d)
    undocumented = [name for name in ops.__all__ if not inspect.getdoc(getattr(ops, name))]
    return {
        "distributions": len(distributions),
        "ops": len(ops.__all__),
        "ops_without_documentation": len(undocumented),
        "book_names": len(d2l.__all__),
    }


if __name__ == "__main__":
    run_script(main)
