"""Two commits of a small clone, compared by real workers: a kernel slowed, one deleted, added, broken, and one that is global."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
KEPT = {"__init__", "problem", "eager", "sdpa"}
SPIN = '''

def slowed(run):
    """Slower by half."""
    import time

    def slow(inputs):
        began = time.perf_counter_ns()
        output = run(inputs)
        end = time.perf_counter_ns()
        end += (end - began) // 2
        while time.perf_counter_ns() < end:
            pass
        return output

    return slow
'''
GLOBAL = '''"""Attention behind an operator whose name every revision registers."""

import torch
import torch.nn.functional as F

from ..registry import Run, Setup, kernel
from .problem import Attention


@torch.library.custom_op("kerneldyno_test::attend", mutates_args=())
def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v) * FACTOR


@kernel(Attention, devices=("cpu",))
def registered(problem: Attention, setup: Setup) -> Run:
    """In this revision the operator multiplies by FACTOR, and the kernel divides by it."""
    return lambda inputs: attend(inputs.q, inputs.k, inputs.v) / FACTOR
'''


class Clone:
    """A repository with the project's three folders, and an installation of it that shadows the one under test."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "clone"
        for name in ("bench", "reports"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__", "published"))
        shutil.copytree(ROOT / "kernels", self.root / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
        for operator in ("attention", "feedforward", "layer"):
            for path in (self.root / "kernels" / operator).glob("[!_]*.py"):
                if path.stem not in KEPT:
                    path.unlink()
        site = folder / "site" / "kerneldyno"
        site.mkdir(parents=True)
        for name in ("bench", "kernels", "reports"):
            (site / name).symlink_to(self.root / name)
        self.environment = {**os.environ, "PYTHONPATH": str(site.parent), "COLUMNS": "120"}
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.email", "somebody@example.org")
        self.git("config", "user.name", "somebody")

    def git(self, *words: str) -> str:
        return subprocess.run(["git", *words], cwd=self.root, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", message)
        return self.git("rev-parse", "HEAD")

    def write(self, name: str, text: str) -> None:
        (self.root / "kernels" / name).write_text(text)

    def text(self, name: str) -> str:
        return (self.root / "kernels" / name).read_text()

    def compare(self, *words: str) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(self.root / "runs", ignore_errors=True)
        command = [sys.executable, "-P", "-m", "kerneldyno.bench", "compare", *words, "--out", str(self.root / "runs" / "it")]
        return subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False)

    @property
    def verdict(self) -> dict:
        return json.loads((self.root / "runs" / "it" / "verdict.json").read_text())


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    made = Clone(tmp_path_factory.mktemp("commits"))
    eager = made.text("attention/eager.py")
    made.write("attention/doomed.py", eager.replace("def eager(", "def doomed("))
    made.write("attention/breaking.py", eager.replace("def eager(", "def breaking("))
    made.write("attention/registered.py", GLOBAL.replace("FACTOR", "2.0"))
    made.commit("base")
    made.git("tag", "before")
    head, at, rest = eager.partition("\n\n@kernel")
    made.write("attention/eager.py", head + SPIN + at + rest.replace("    return run\n", "    return slowed(run)\n"))
    (made.root / "kernels" / "attention" / "doomed.py").unlink()
    made.write("attention/breaking.py", eager.replace("def eager(", "def breaking(").replace("@kernel(Attention,", "@kernel(Attenion,"))
    made.write("attention/added.py", eager.replace("def eager(", "def added("))
    made.write("attention/registered.py", GLOBAL.replace("FACTOR", "4.0"))
    made.write("attention/sdpa.py", "# a comment\n" + made.text("attention/sdpa.py"))
    made.commit("candidate")
    return made


@pytest.mark.slow
def test_what_each_kind_of_change_comes_to(clone):
    tiny = ("--batch", "1", "--seq-len", "32", "--set", "heads=1", "--set", "head_dim=32", "--operator", "attention", "--threads", "1")
    done = clone.compare("--base", "before", *tiny, "--processes", "4")
    assert done.returncode == 5, done.stdout + done.stderr
    found = clone.verdict
    verdicts = {one["kernel"].partition("/")[2]: one for one in found["verdicts"]}
    assert {name: one["word"] for name, one in verdicts.items()} == {
        "eager": "REGRESSED",
        "doomed": "MISSING",
        "breaking": "FAILED",
        "added": "NEW",
        "registered": verdicts["registered"]["word"],
    }
    assert "there is no attention/doomed" in verdicts["doomed"]["reason"]
    assert "Attenion" in verdicts["breaking"]["reason"]
    assert verdicts["eager"]["latency"]["ratio"] > 1.2
    # two revisions of an operator of one name: each in processes of its own, each with its own factor, or one would be wrong
    assert "kerneldyno_test::attend" in verdicts["registered"]["adjacent"]
    assert verdicts["registered"]["latency"]["processes"] >= 4
    assert found["base"]["label"] == "before"
    assert found["base"]["commit"] == clone.git("rev-parse", "before")
    assert found["candidate"]["commit"] == clone.git("rev-parse", "HEAD")
    assert "attention/sdpa" in found["unchanged"]  # its comment does not count
    assert len(found["canaries"]) == 3


def test_a_commit_that_changes_no_kernel_has_nothing_to_compare(clone):
    done = clone.compare("--base", "HEAD")
    assert done.returncode == 0, done.stdout + done.stderr
    assert clone.verdict["verdicts"] == []


def test_kernels_that_neither_commit_has_are_a_mistake(clone):
    done = clone.compare("--base", "before", "--kernels", "attention/nothing")
    assert done.returncode == 2
    assert "--kernels 'attention/nothing' matches no kernel" in done.stderr


def test_a_new_file_that_does_not_load_is_not_passed_over(clone):
    clone.write("attention/fresh.py", "from ..registry import kernel, nothing_of_that_name\n")
    done = clone.compare("--base", "HEAD")
    (clone.root / "kernels" / "attention" / "fresh.py").unlink()
    assert done.returncode == 2, done.stdout + done.stderr
    assert "attention/fresh.py" in done.stderr
    assert "nothing_of_that_name" in done.stderr
    assert done.stderr.count("\n") == 1
