"""The ways in which one piece of work is run: layouts, torch.compile, CUDA graphs, precision modes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from types import FunctionType

import torch

from benchmarks import machine
from benchmarks.harness import Runner, Skip

LAYOUTS = ("nchw", "channels_last")
SEED = 20_240_229


def as_layout(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """A detached copy in `layout`, with the strides of that layout also where one channel would leave them open."""
    memory_format = torch.channels_last if layout == "channels_last" and tensor.dim() == 4 else torch.contiguous_format
    return torch.empty_like(tensor, memory_format=memory_format, requires_grad=False).copy_(tensor.detach())


def random_tensors(shapes: dict[str, tuple[int, ...]], device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Seeded normal inputs, the same in every run and for every contestant; one seed per name."""
    return {
        name: torch.randn(shape, generator=torch.Generator(device).manual_seed(SEED + i), device=device).to(dtype)
        for i, (name, shape) in enumerate(shapes.items())
    }


def set_precision(dtype: str) -> None:
    """Arithmetic of float32 convolutions and matrix products on a GPU, for all contestants alike; cuDNN searches."""
    precision = "tf32" if dtype == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = precision
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.benchmark = True


def compiled(function: Callable, device: str) -> Callable:
    """torch.compile of a function or module with static shapes, or Skip where it cannot generate code."""
    if device == "cpu" and not machine.has_compiler():
        raise Skip("torch.compile needs a C++ compiler, and there is none")
    import torch._dynamo.config
    import torch._functorch.config

    # A benchmark runs one backward many times over; donated buffers forbid that.
    torch._functorch.config.donated_buffer = False
    # The default is to go on in eager mode without a word.
    torch._dynamo.config.fail_on_recompile_limit_hit = True

    def call(*arguments: object) -> object:
        return function(*arguments)

    # Compiled graphs hang on the code object. With one of its own, no contestant pays for the guards of another.
    own = FunctionType(call.__code__.replace(), call.__globals__, call.__name__, None, call.__closure__)
    return torch.compile(own, dynamic=False)


def frozen(build: Callable[[], Runner]) -> Runner:
    """Compiled for inference: weights are constants of the graph, and the fastest of several kernels is searched."""
    import torch._inductor.config

    # Tracing reads the settings too, so they are set around it and not given to torch.compile. It prints every choice.
    quiet = redirect_stdout(StringIO()), redirect_stderr(StringIO())
    with torch._inductor.config.patch(freezing=True, max_autotune=True), quiet[0], quiet[1]:
        runner = build()
        runner.run()
    return runner


def graphed(build: Callable[[], Runner]) -> Runner:
    """The same work recorded once as a CUDA graph and replayed."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        runner = build()
        for _ in range(3):
            runner.run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        output = runner.run()

    def replay() -> object:
        graph.replay()
        return output

    return replace(runner, run=replay)
