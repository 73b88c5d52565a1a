"""A report opens on a laptop: no torch, no kernels, nothing but what records and reports need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FORBIDDEN = ("torch", "triton", "onnxruntime", "onnx", "torchao", "memray", "kerneldyno.kernels")


def loaded_after(code: str, *arguments: str) -> set[str]:
    """The modules that a fresh interpreter holds after running this."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)", *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def foreign(loaded: set[str]) -> set[str]:
    return {name for name in loaded if name in FORBIDDEN or name.startswith(("torch.", "kerneldyno.kernels."))}


def test_frames_need_neither_torch_nor_kernels_nor_plotly() -> None:
    loaded = loaded_after("import kerneldyno.reports.frame")
    assert "kerneldyno.reports.frame" in loaded
    assert not foreign(loaded)
    assert "plotly" not in loaded


def test_rendering_a_run_imports_neither_torch_nor_kernels(rich_copy: Path) -> None:
    code = "from kerneldyno.reports import frame, page\npage.render(sys.argv[1])\nframe.write_tables(sys.argv[1])"
    loaded = loaded_after(code, str(rich_copy))
    assert {"kerneldyno.reports.page", "kerneldyno.reports.figures", "plotly"} <= loaded
    assert not foreign(loaded)
