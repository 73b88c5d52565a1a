"""The check of interleaving runs and names every ordered pair; what it finds depends on the machine and is not judged here."""

from __future__ import annotations

import subprocess
import sys


def test_every_ordered_pair_is_measured():
    words = ["--kernels", "sdpa,eager,onnxrt", "--seq-len", "32", "--repeats", "1"]
    done = subprocess.run([sys.executable, "-P", "-m", "kerneldyno.bench.neighbours", *words], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 5), done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 7
    assert "6 ordered pairs" in lines[-1]
    for name in ("attention/sdpa", "attention/eager", "attention/onnxrt"):
        assert sum(line.startswith(name) for line in lines) == 2
