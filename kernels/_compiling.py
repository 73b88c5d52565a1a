"""torch.compile for one shape: no graph breaks, no recompilation shared between builds, a sentence where it cannot work."""

from __future__ import annotations

import os
import shutil
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from .registry import Device, Problem


def no_compiler(problem: Problem, device: Device) -> str | None:  # noqa: ARG001
    """torch.compile writes C++ for a CPU, which it has compiled by $CXX or g++ and nothing else; for a GPU it writes Triton."""
    compiler = os.environ.get("CXX") or "g++"
    if device.kind == "cpu" and shutil.which(compiler) is None:
        return f"torch.compile needs a C++ compiler on a CPU, and {compiler} was not found: install g++ or name another in CXX"
    return None


def compiled_once(function: Callable[..., torch.Tensor], *, gradients: bool = False, tuned: bool = False) -> Callable[..., torch.Tensor]:
    """`function` compiled for the shapes of its first call; in inference, unless it is for `gradients`.

    `tuned`: as in the mode max-autotune-no-cudagraphs, for which inductor tries several kernels for each product.

    Dynamo counts recompilations by code object and refuses the ninth, and every build of a kernel shares one code
    object: so each gets a copy of its own.
    """
    assert isinstance(function, FunctionType)
    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    own.__kwdefaults__ = function.__kwdefaults__
    fast = torch.compile(own, fullgraph=True, dynamic=False, options=_options(tuned=tuned))

    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        with torch.set_grad_enabled(gradients):  # the compiled code is for this mode: another one would compile it again
            result: torch.Tensor = fast(*args, **kwargs)
        return result

    return call


def _options(*, tuned: bool) -> dict[str, Any]:
    """No precompiled headers: with a cold cache they take 12 s, and each of the few compilations here gets back less than one."""
    wanted: dict[str, Any] = {"cpp_cache_precompile_headers": False}
    if tuned:
        wanted |= {**torch._inductor.list_mode_options("max-autotune-no-cudagraphs"), "autotune_num_choices_displayed": 0}  # noqa: SLF001
    return {name: value for name, value in wanted.items() if name in torch._inductor.list_options()}  # noqa: SLF001
