"""The command line as users meet it: help without torch, mistakes in one sentence with a documented exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kerneldyno.bench.__main__ import main

PLUGIN = Path(__file__).with_name("broken_kernels.py")


def kerneldyno(*words, cwd=None):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "kerneldyno.bench", *words], capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """The command line in this process, in an empty folder: (exit status, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["kerneldyno", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    return call


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list"]])
def test_help_and_list_import_no_torch(words):
    script = (
        "import sys\nfrom kerneldyno.bench.__main__ import app\n"
        f"app({words!r}, standalone_mode=False)\n"
        "loaded = {'torch', 'triton', 'onnxruntime', 'pandas', 'plotly'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 500


def test_list_names_devices_presets_and_kernels():
    code, out, _ = kerneldyno("list")
    assert code == 0
    for name in ("cpu", "default", "fa-grid", "attention/sdpa", "feedforward/int8", "layer/torch", "attention/fused"):
        assert name in out


def plugin(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    return str(path)


MISTAKES = {
    "preset": (["--preset", "nosuch"], ["'nosuch'", "default"]),
    "kernel": (["--kernels", "attention/nosuch"], ["'attention/nosuch'", "attention/sdpa"]),
    "operator": (["--operator", "conv"], ["'conv'", "attention"]),
    "dtype": (["--dtype", "float8"], ["'float8'", "bfloat16"]),
    "device": (["--device", "tpu"], ["tpu", "cpu"]),
    "no such gpu": (["--device", "cuda:99"], ["99"]),
    "zero": (["--seq-len", "0"], ["0", "at least 1"]),
    "negative": (["--batch=-2"], ["-2"]),
    "groups": (["--operator", "attention", "--set", "kv_heads=3"], ["3", "8"]),
    "empty list": (["--batch", ","], ["empty list"]),
    "empty list too": (["--operator", ","], ["empty list"]),
    "unknown field": (["--set", "colour=3"], ["colour", "head_dim"]),
    "protocol": (["--protocol", "eternal"], ["'eternal'", "smoke"]),
    "energy": (["--energy", "maybe"], ["'maybe'", "auto"]),
    "direction": (["--direction", "up"], ["'up'", "backward"]),
    "budget": (["--budget", "-3"], ["-3"]),
    "processes": (["--processes", "0"], ["0"]),
    "activation": (["--operator", "feedforward", "--set", "activation=tanhh"], ["tanhh", "relu"]),
    "too many threads": (["--threads", "100000"], ["--threads 100000"]),
    "no threads": (["--threads", "0"], ["--threads 0"]),
    "seed": (["--seed", "-1"], ["--seed -1"]),
    "not a truth value": (["--set", "causal=no"], ["'no'", "true or false"]),
    "too long": (["--seq-len", "99999999999999999999999"], ["99999999999999999999999", "at most"]),
    "too much": (["--operator", "attention", "--batch", "2000000000", "--seq-len", "2000000000"], ["too large"]),
    "not a field": (["--set", "operator=attention"], ["'operator'", "head_dim"]),
    "short name": (["--set", "dtype=bf17"], ["'bf17'", "bfloat16"]),
    "no operator": (["--operator", ""], ["--operator '' is an empty list"]),
    "nothing runs": (["--kernels", "attention/fused", "--device", "cpu"], ["attention/fused", "cuda only"]),
    "missing plugin": (["--load", "/nowhere/mine.py"], ["mine.py", "no such file"]),
    "missing run": (["--resume", "/nowhere/run"], ["run"]),
    "resume with a shape": (["--resume", "x", "--batch", "3"], ["--batch"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence_and_exit_status_two(mistake, here, tmp_path):
    words, named = MISTAKES[mistake]
    code, err = here("run", *words)
    assert code == 2, err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1, err
    for name in named:
        assert name in err
    assert list(tmp_path.iterdir()) == []


PLUGINS = {
    "does not parse": ("def (", "does not parse"),
    "raises": ("raise RuntimeError('boom')", "boom"),
    "no kernel": ("x = 1", "defines no kernel"),
    "no claim": (
        "from kerneldyno.kernels.attention.problem import Attention\nfrom kerneldyno.kernels.registry import kernel\n"
        "@kernel(Attention, approximate=True)\ndef k(problem, setup):\n    return lambda inputs: inputs.q\n",
        "claim",
    ),
}


@pytest.mark.parametrize("kind", PLUGINS)
def test_a_bad_plugin_is_named(kind, here, tmp_path):
    text, said = PLUGINS[kind]
    code, err = here("run", "--load", plugin(tmp_path, text))
    assert code == 2, err
    assert "Traceback" not in err
    assert "mine.py" in err
    assert said in err


def test_a_folder_that_holds_another_run_is_refused(tmp_path):
    words = [
        "run",
        "--operator",
        "attention",
        "--kernels",
        "eager",
        "--seq-len",
        "16",
        "--device",
        "cpu",
        "--protocol",
        "smoke",
        "--out",
        "r",
    ]
    code, out, err = kerneldyno(*words, cwd=tmp_path)
    assert code == 0, out + err
    assert {path.name for path in (tmp_path / "r").iterdir()} >= {
        "manifest.json",
        "journal.jsonl",
        "results.csv",
        "results.parquet",
        "report.html",
    }
    assert "report.html" in out
    code, _, err = kerneldyno(*words, cwd=tmp_path)
    assert code == 2
    assert "--resume" in err
    code, _, err = kerneldyno("report", "r", cwd=tmp_path)
    assert code == 0, err


def test_a_run_with_a_broken_kernel_exits_with_five(tmp_path):
    words = ["--operator", "attention", "--kernels", "raises,good", "--load", str(PLUGIN), "--seq-len", "16", "--protocol", "smoke"]
    code, out, _ = kerneldyno("run", *words, "--device", "cpu", "--out", "r", cwd=tmp_path)
    assert code == 5
    assert "sharp edge" in out
    assert "1 ok, 1 failed" in out


def test_a_resumed_run_whose_kernels_changed_is_refused_with_three(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.read_text())
    words = ["--operator", "attention", "--kernels", "good", "--seq-len", "16", "--protocol", "smoke", "--device", "cpu", "--out", "r"]
    code, out, err = kerneldyno("run", "--load", str(path), *words, cwd=tmp_path)
    assert code == 0, out + err
    code, _, err = kerneldyno("run", "--resume", "r", cwd=tmp_path)
    assert code == 2
    assert "--load mine.py" in err
    path.write_text(PLUGIN.read_text() + "\n# changed\n")
    code, _, err = kerneldyno("run", "--resume", "r", "--load", str(path), cwd=tmp_path)
    assert code == 3
    assert "attention/good" in err
