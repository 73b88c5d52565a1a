from __future__ import annotations

import shutil

import pytest
import torch

from kerneldyno.kernels._compiling import _options, compiled_once, no_compiler
from kerneldyno.kernels.registry import Device

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")


def build(factor):
    def function(x):
        return x * factor

    return compiled_once(function)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # raised by inductor's own imports
def test_builds_do_not_share_dynamos_limit():
    with torch._dynamo.config.patch(recompile_limit=1):
        assert [build(factor)(torch.ones(1)).item() for factor in (2.0, 3.0)] == [2, 3]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_graph_breaks_are_errors():
    def breaking(x):
        print("now")
        return x + 1

    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled_once(breaking)(torch.ones(1))


def test_a_compiler_named_in_the_environment_counts(monkeypatch):
    assert no_compiler(None, Device("cpu")) is None
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "C++ compiler" in no_compiler(None, Device("cpu"))
    assert no_compiler(None, Device("cuda")) is None


def test_only_what_is_tuned_is_tried():
    plain, tuned = _options(tuned=False), _options(tuned=True)
    assert tuned["max_autotune"] is True
    assert not tuned.get("triton.cudagraphs", False)
    assert "max_autotune" not in plain
    assert plain.items() <= tuned.items()
