"""What a worker loads for the sides of a comparison: a file that fails costs its own kernels only."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[3] / "kernels"
PROGRAM = """
import sys
from pathlib import Path
from kerneldyno.bench.compare.alone import load_alone

folder, alone = sys.argv[1], sys.argv[2] == "alone"
if alone:
    load_alone(Path(folder))

from kerneldyno.bench.compare import loading
from kerneldyno.bench.messages import Source
from kerneldyno.bench.records import Case

def case(kernel):
    return Case(kernel=kernel, family="eager", operator="attention", problem={}, label="", batch=1, seq_len=1, tokens=1, dtype="float32",
                direction="forward", device="cpu", seed=0, flops=1, min_bytes=1, approximate=False, baseline="", side="base")

found = loading.entries({"base": Source(folder=folder)}, [case("attention/eager"), case("attention/sdpa")], alone=alone)
print(Path(found["base:attention/sdpa"].source).is_relative_to(folder))
lost = found["base:attention/eager"]
try:
    lost.build(lost.problem(q_len=4), None)
except Exception as error:
    print(type(error).__name__, error)
"""


def run(program, *words):
    return subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("how", ["beside", "alone"])
def test_a_module_that_fails_with_the_real_torch_costs_its_own_kernels(tmp_path, how):
    folder = tmp_path / "kernels"
    shutil.copytree(KERNELS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    eager = folder / "attention" / "eager.py"
    eager.write_text(eager.read_text() + "\n\nimport torch as t\n\nGONE = t.no_such_function\n")
    done = run(PROGRAM, folder, how)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True\nKernelFileError attention/eager is not defined when the base's files are loaded here")
    assert "no_such_function" in done.stdout


def test_files_are_executed_once_for_all_sides_of_one_revision(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\nfrom kerneldyno.kernels.attention.problem import Attention\nfrom kerneldyno.kernels.registry import kernel\n"
        "LIBRARY = torch.library.Library('kerneldyno_once', 'DEF')\n\n@kernel(Attention)\ndef once(problem, setup):\n    return None\n"
    )
    program = (
        "import sys; from kerneldyno.bench.compare import loading; from kerneldyno.bench.messages import Source\n"
        "source = Source(load=(sys.argv[1],))\n"
        "found = loading.entries(dict.fromkeys(('base', 'candidate', 'copy'), source), [])\n"
        "print(sorted(name for name in found if name.endswith('once')))"
    )
    done = run(program, file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['base:attention/once', 'candidate:attention/once', 'copy:attention/once']"
