"""Devices, their choice and their refusal; what is recorded of a machine; how workers are started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from kerneldyno.bench import environment
from kerneldyno.bench.environment import DeviceError, choose, describe, find_devices
from kerneldyno.kernels.registry import Device


def gpu(index: int, name: str = "NVIDIA H100") -> SimpleNamespace:
    return SimpleNamespace(
        index=index, name=name, capability=(9, 0), memory_bytes=80 * 2**30, driver="580.65.06", power_limit_w=700.0, max_sm_mhz=1980.0,
        slice=None, uuid="GPU-secret", clock_events=lambda: ("power cap",),
    )  # fmt: skip


@pytest.fixture
def machine(monkeypatch):
    """Sets up (GPUs that are visible, GPUs that there are, version of torch, CUDA of torch)."""

    def set_up(visible=(), there=None, torch="2.13.0", cuda: str | None = "13.0") -> None:
        def devices(api=None, environ=None):
            return list(visible if environ is None or there is None else there)

        monkeypatch.setattr(environment.nvml, "devices", devices)
        monkeypatch.setattr(environment, "torch_cuda", lambda: cuda)
        known = environment.versions
        monkeypatch.setattr(
            environment, "versions", lambda names: ({"torch": torch} if torch else {}) if list(names) == ["torch"] else known(names)
        )

    return set_up


def test_the_cpu_is_always_there(machine) -> None:
    machine()
    (cpu,) = find_devices()
    assert (cpu.kind, str(cpu), cpu.capability) == ("cpu", "cpu", None)
    assert cpu.name
    assert cpu.memory_bytes > 2**28
    assert choose("auto") == choose("cpu") == cpu


def test_gpus_are_found_and_chosen(machine) -> None:
    machine([gpu(0), gpu(1, "NVIDIA L4")])
    assert [str(device) for device in find_devices()] == ["cpu", "cuda:0", "cuda:1"]
    assert choose("auto") == choose("cuda") == choose("cuda:0") == Device("cuda", 0, "NVIDIA H100", (9, 0), 80 * 2**30)
    assert choose("cuda:1").name == "NVIDIA L4"
    assert choose("cpu").kind == "cpu"
    assert environment.why_no_gpu() is None


@pytest.mark.parametrize("text", ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:x", "cuda:0 ", "cpu:0", "mps"])
def test_unknown_devices_are_refused_with_what_can_be_chosen(machine, text) -> None:
    machine([gpu(0)])
    with pytest.raises(DeviceError) as refused:
        choose(text)
    assert str(refused.value) == f"device {text!r} is unknown: choose auto, cpu, cuda or cuda:N"
    assert refused.value.exit_code == 2


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(machine) -> None:
    machine([gpu(0), gpu(1)])
    with pytest.raises(DeviceError, match=r"^device 'cuda:2' does not exist: choose cpu or cuda:0 \(NVIDIA H100\), cuda:1 \("):
        choose("cuda:2")


@pytest.mark.parametrize(
    ("set_up", "words"),
    [
        ({}, "no NVIDIA driver answers"),
        (
            {"visible": [gpu(0)], "torch": "2.13.0+cpu", "cuda": None},
            "there is a GPU (NVIDIA H100), but the installed PyTorch 2.13.0+cpu is",
        ),
        ({"visible": [gpu(0)], "torch": None, "cuda": None}, "but PyTorch is not installed: pip install"),
        ({"visible": [], "there": [gpu(0)]}, "CUDA_VISIBLE_DEVICES='' hides the 1 GPU(s)"),
    ],
)
def test_why_there_is_no_gpu(machine, monkeypatch, set_up, words) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine(**set_up)
    assert [device.kind for device in find_devices()] == ["cpu"]
    assert choose("auto").kind == "cpu"
    with pytest.raises(DeviceError) as refused:
        choose("cuda:0")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_cpu_described(machine) -> None:
    machine()
    found = describe(choose("cpu"), threads=3)
    assert (found.device, found.threads, found.gpu) == ("cpu", 3, None)
    assert found.device_name == found.cpu_name
    assert found.cpu_cores <= (os.cpu_count() or 1)
    assert found.python.startswith("3.")
    assert found.worker_settings == environment.QUIET
    assert {"torch", "numpy"} <= found.versions.keys()
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_a_gpu_described_without_its_serial(machine) -> None:
    machine([gpu(0)])
    found = describe(choose("cuda:0"), threads=2)
    assert found.device_name == "NVIDIA H100"
    assert found.gpu == {
        "driver": "580.65.06", "driver_major": "580", "cuda": "13.0", "capability": "9.0", "memory_bytes": 80 * 2**30,
        "power_limit_w": 700.0, "max_sm_mhz": 1980.0, "clocks": "not locked", "mig": False, "board": "b62643e1",
    }  # fmt: skip
    others = {uuid: environment.hashed(uuid) for uuid in ("GPU-secret", "GPU-other", "")}
    assert others["GPU-secret"] == "b62643e1" != others["GPU-other"]
    assert others[""] is None
    assert b"secret" not in msgspec.json.encode(found)


def test_the_fingerprint_tells_machines_apart_and_not_moments(machine) -> None:
    machine([gpu(0)])
    found = describe(choose("cuda:0"), threads=2)
    assert describe(choose("cuda:0"), threads=2).fingerprint == found.fingerprint
    assert describe(choose("cuda:0"), threads=1).fingerprint != found.fingerprint
    assert describe(choose("cpu"), threads=2).fingerprint != found.fingerprint


def test_workers_start_with_threads_malloc_and_fresh_caches(tmp_path) -> None:
    added = environment.worker_environment(3, tmp_path)
    assert added["OMP_NUM_THREADS"] == added["MKL_NUM_THREADS"] == "3"
    assert environment.QUIET.items() <= added.items()
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert Path(added[name]).parent == tmp_path
    assert added["TORCHINDUCTOR_CACHE_DIR"] != added["TRITON_CACHE_DIR"]
    assert added["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    code = "import os; print(os.environ['MALLOC_TRIM_THRESHOLD_'])"
    answer = subprocess.run([sys.executable, "-c", code], env={**os.environ, **added}, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "8589934592"


def executable(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)
    return folder / name


def test_the_compiler_is_the_one_given_or_the_one_found(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert environment.cxx_compiler() is None
    executable(tmp_path / "bin", "clang++")
    assert environment.cxx_compiler() == "clang++"
    mine = executable(tmp_path / "mine", "special-g++")
    monkeypatch.setenv("CXX", f"{mine} -std=c++20")
    assert environment.cxx_compiler() == str(mine)
    monkeypatch.setenv("CXX", "not-there")
    assert environment.cxx_compiler() == "clang++"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(["git", *identity, *arguments], cwd=folder, env=plain, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_that_of_the_packages_own_checkout(tmp_path, monkeypatch) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "kernels").mkdir(parents=True)
    assert environment.commit(checkout) is None
    git(checkout, "init", "-q")
    assert environment.commit(checkout) is None  # nothing committed yet
    (checkout / "kernels" / "a.py").write_text("1\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "first")
    head = git(checkout, "rev-parse", "HEAD")
    assert environment.commit(checkout) == head
    assert environment.commit(checkout / "kernels") is None  # installed inside somebody else's checkout
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert environment.commit(checkout) == head
    (checkout / "kernels" / "a.py").write_text("2\n")
    assert environment.commit(checkout) == f"{head}-dirty"
    git(checkout, "commit", "-q", "-a", "-m", "second")
    (checkout / "kernels" / "new.py").write_text("an untracked kernel is measured too\n")
    assert environment.commit(checkout).endswith("-dirty")
    monkeypatch.setenv("PATH", "")
    assert environment.commit(checkout) is None


def test_torchs_cuda_is_read_without_importing_torch(tmp_path, monkeypatch) -> None:
    version = tmp_path / "version.py"
    monkeypatch.setattr(environment.importlib.metadata, "distribution", lambda _: SimpleNamespace(locate_file=lambda _: version))
    version.write_text("__version__ = '2.13.0+cu130'\ndebug = False\ncuda: Optional[str] = '13.0'\ngit_version = 'x'\n")
    assert environment.torch_cuda() == "13.0"
    version.write_text("cuda: Optional[str] = None\n")
    assert environment.torch_cuda() is None
    version.unlink()
    assert environment.torch_cuda() is None


def test_torchs_cuda_is_what_torch_says() -> None:
    import torch

    assert environment.torch_cuda() == torch.version.cuda


def test_choosing_and_describing_import_no_torch() -> None:
    code = (
        "import sys; from kerneldyno.bench import environment as e; d = e.choose('auto'); e.describe(d, 1); e.cxx_compiler(); "
        "print(sorted({'torch', 'triton', 'onnxruntime', 'pandas', 'scipy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
