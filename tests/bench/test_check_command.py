"""`kerneldyno check` as a user calls it: real worker processes, wrong and cheating kernels named with their place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PLUGIN = '''
import ctypes
import torch
import torch.nn.functional as F
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import kernel


@kernel(Attention, accepts=("causal",))
def careless(problem, setup):
    """Aligns its causal mask to the top left."""
    return lambda inputs: F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v, is_causal=problem.causal)


@kernel(Attention, accepts=("causal",))
def leaking(problem, setup):
    """Every query sees one key too many."""
    def run(inputs):
        mask = torch.ones(problem.q_len, problem.kv_len, dtype=torch.bool).tril(problem.kv_len - problem.q_len + 1)
        return F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v, attn_mask=mask if problem.causal else None)
    return run


@kernel(Attention, accepts=("causal",))
def greedy(problem, setup):
    """Right, with one thread for itself."""
    def run(inputs):
        torch.set_num_threads(1)
        return problem.naive(inputs)
    return run


@kernel(Attention, accepts=("causal",))
def crashing(problem, setup):
    """Reads address 0 when it is built for an awkward length."""
    if problem.q_len == 127:
        ctypes.string_at(0)
    return problem.naive


@kernel(Attention, accepts=("causal",))
def sound(problem, setup):
    """Right."""
    return problem.naive
'''


def check(*words: str, cwd: Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "kerneldyno.bench", "check", "--device", "cpu", *words], capture_output=True, text=True, cwd=cwd, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_what_is_wrong_is_told_with_its_place_and_the_rest_is_checked(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    words = ["--operator", "attention", "--kernels", "careless,leaking,greedy,crashing,sound", "--load", "mine.py", "--json", "found.json"]
    code, out, err = check(*words, "--set", "q_len=20", "--set", "kv_len=30", "--set", "heads=2", "--causal", cwd=tmp_path)
    assert code == 5, out + err
    assert "Traceback" not in out + err
    found = {entry["case"]["kernel"]: entry["measurement"] for entry in json.loads((tmp_path / "found.json").read_text())}
    assert {name.partition("/")[2]: measurement["status"] for name, measurement in found.items()} == {
        "careless": "wrong",
        "leaking": "wrong",
        "greedy": "invalid",
        "crashing": "failed",
        "sound": "ok",
    }
    for name in ("careless", "leaking"):
        reason = found[f"attention/{name}"]["reason"]
        assert all(word in reason for word in ("batch 0, head ", "row ", "expected ", "got ")), reason
    assert "changes global state: the thread count" in found["attention/greedy"]["reason"]
    assert len(found["attention/sound"]["probes"]) >= 8
    assert "5 cases: 1 ok, 2 wrong, 1 failed, 1 invalid" in out
    assert out.count("attention/sound ") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"mine.py", "found.json"}


def test_a_crash_in_a_probe_costs_one_case(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    words = ["--kernels", "attention/crashing,attention/sound", "--load", "mine.py", "--set", "q_len=20", "--set", "heads=2"]
    code, out, _ = check(*words, cwd=tmp_path)
    assert code == 5
    assert "check: the worker was killed by SIGSEGV" in " ".join(out.split())
    assert "2 cases: 1 ok, 1 failed" in out


def test_mistakes_get_one_sentence(tmp_path):
    for words, named in (
        (["--kernels", "nobody"], "nobody"),
        (["--preset", "nowhere"], "nowhere"),
        (["--json", "/nowhere/x"], "/nowhere/x"),
    ):
        short = ["--kernels", "attention/eager", "--set", "q_len=4"] if "--json" in words else []
        code, _, err = check(*short, *words, cwd=tmp_path)
        assert code == 2
        assert "Traceback" not in err
        assert named in err
        assert len(err.strip().splitlines()) == 1
