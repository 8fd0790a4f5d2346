"""Section 5.5: reading and writing tensors, lists, dictionaries and parameters, in files that run no code."""

import pickle
import tempfile
from pathlib import Path

import torch

from d2lkernels import d2l, models
from d2lkernels.d2l.example import run_script


class Trap:
    """What a stranger's file may hold: an object that calls a function when it is read."""

    def __reduce__(self):
        return print, ("code ran from a file",)


def main(example):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x, y = torch.arange(4), torch.zeros(4)
        for value in (x, [x, y], {"x": x, "y": y}):
            torch.save(value, folder / "value")
            print(torch.load(folder / "value", weights_only=True))

        net = models.build("mlp")
        torch.save(net.state_dict(), folder / "mlp.params")
        clone = models.build("mlp")
        clone.load_state_dict(torch.load(folder / "mlp.params", weights_only=True))
        clone.eval()
        X = torch.randn(2, 1, 28, 28)
        same = torch.equal(net(X), clone(X))

        # safetensors holds tensors and nothing else, and can be mapped into memory.
        safetensors = d2l.require("safetensors.torch", "this example")
        safetensors.save_file(net.state_dict(), folder / "mlp.safetensors")
        clone.load_state_dict(safetensors.load_file(folder / "mlp.safetensors"))
        same_safe = torch.equal(net(X), clone(X))

        torch.save(Trap(), folder / "trap")
        try:
            torch.load(folder / "trap", weights_only=True)
            refused = False
        except pickle.UnpicklingError as error:
            refused = True
            print("a file with code:", str(error).splitlines()[0])
        sizes = {path.name: path.stat().st_size for path in folder.glob("mlp.*")}
    return {
        "same_output": same,
        "same_output_safetensors": same_safe,
        "code_refused": refused,
        "bytes": sizes["mlp.params"],
    }


if __name__ == "__main__":
    run_script(main)
