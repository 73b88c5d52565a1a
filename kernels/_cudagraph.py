"""A function of one tensor recorded once as a CUDA graph: what it costs the host to launch is paid in the build."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

WARM_CALLS = 3
"""Before recording, so that libraries have loaded their kernels and chosen among them."""


def recorded(function: Callable[[torch.Tensor], torch.Tensor], example: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """`function` for tensors of the shape and dtype of `example`, which is on a GPU.

    Each call copies its argument to where the graph reads, replays it on the current stream and copies the result to new memory.
    What lies between stays allocated from now on, in a pool of the graph's own.
    """
    with torch.cuda.device(example.device):
        read = example.contiguous().clone()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside), torch.no_grad():
            for _ in range(WARM_CALLS):
                function(read)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # other threads may use the device meanwhile: a meter, a profiler
        with torch.no_grad(), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            written = function(read)

    def replayed(given: torch.Tensor) -> torch.Tensor:
        read.copy_(given)
        graph.replay()
        return written.clone(memory_format=torch.contiguous_format)

    return replayed
