"""The machine and its software: which devices there are, what describes them, and how workers are started. No torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerneldyno.kernels.registry import Device

from .instruments import nvml, processor
from .manifest import Environment
from .privacy import hashed
from .privacy import scrub as scrub  # noqa: PLC0414 - part of what this module offers

if TYPE_CHECKING:
    from collections.abc import Iterable

QUIET = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "GOMP_SPINCOUNT": "10000",
}
"""What keeps a kernel from disturbing its neighbour in the rounds.

Without the first two glibc gives pages back and fetches them again depending on what ran before: 2-4 x in latency. With
OpenMP's own spin count torch's idle threads kept spinning for milliseconds: ONNX Runtime looked 1.35 x slower beside a torch
kernel than alone. 10 000 turns are about 0.3 ms: long enough for torch's own next operation, gone before the next leg.
"""
RIVALS = (
    "flash-attn",
    "flash-attn-3",
    "nvidia-cudnn-frontend",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
    "jax-cuda12-plugin",
    "jax-cuda13-plugin",
)
MEASURING_PACKAGES = ("torch", "triton", "onnxruntime-gpu", "onnxruntime", "onnx", "torchao", "jax", "jaxlib", "numpy", *RIVALS)
"""Their versions decide what a number means: they belong to the fingerprint."""
CHECKOUT = Path(__file__).resolve().parents[1]


class DeviceError(Exception):
    """The device asked for is not there; the message says what is."""

    exit_code = 2


def find_devices() -> list[Device]:
    """Every device on which the installed torch can measure: the CPU first, then GPUs as CUDA counts them."""
    cpu = Device("cpu", name=processor.name(), memory_bytes=processor.memory_bytes())
    if _torch_without_cuda():
        return [cpu]
    gpus = nvml.devices()
    return [cpu, *(Device("cuda", gpu.index, gpu.name, gpu.capability, gpu.memory_bytes) for gpu in gpus)]


def why_no_gpu() -> str | None:
    """Why `find_devices` found no GPU, in a sentence; None when it found one."""
    gpus = nvml.devices()
    if gpus and (reason := _torch_without_cuda()):
        return f"there is a GPU ({gpus[0].name}), but {reason}"
    if gpus:
        return None
    if hidden := nvml.devices(environ={}):
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return f"CUDA_VISIBLE_DEVICES={given!r} hides the {len(hidden)} GPU(s) of this machine: unset it or name one of them"
    return "no NVIDIA driver answers on this machine (NVML), or it knows no GPU"


def choose(text: str) -> Device:
    """The device that --device names: auto (a GPU where there is one), cpu, cuda, cuda:N.

    Raises DeviceError with one sentence when it is not there.
    """
    found = find_devices()
    gpus = [device for device in found if device.kind == "cuda"]
    if text == "auto":
        return gpus[0] if gpus else found[0]
    if text == "cpu":
        return found[0]
    match = re.fullmatch(r"cuda(?::(\d+))?", text)
    if not match:
        raise DeviceError(f"device {text!r} is unknown: choose auto, cpu, cuda or cuda:N")
    if not gpus:
        raise DeviceError(f"device {text!r} cannot be used: {why_no_gpu()}; choose cpu or auto")
    for gpu in gpus:
        if gpu.index == int(match.group(1) or 0):
            return gpu
    there = ", ".join(f"{gpu} ({gpu.name})" for gpu in gpus)
    raise DeviceError(f"device {text!r} does not exist: choose cpu or {there}")


def describe(device: Device, threads: int) -> Environment:
    """The machine as it is recorded with a run in which kernels use `threads` threads of the CPU."""
    return Environment(
        device=str(device),
        device_name=device.name or processor.name(),
        os=_operating_system(),
        python=platform.python_version(),
        versions=versions(MEASURING_PACKAGES),
        cpu_name=processor.name(),
        cpu_cores=processor.cores(),
        cpu_features=processor.features(),
        memory_bytes=processor.memory_bytes(),
        threads=threads,
        gpu=_gpu(device) if device.kind == "cuda" else None,
        worker_settings=dict(QUIET),
        commit=commit(),
    )


def worker_environment(threads: int, cache_dir: Path) -> dict[str, str]:
    """Environment variables that a worker needs on top of the parent's.

    Compilers cache under `cache_dir`: give a new folder per run, or builds are warm. CUDA counts devices as NVML does.
    """
    return {
        **QUIET,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "TORCHINDUCTOR_CACHE_DIR": str(cache_dir / "inductor"),
        "TRITON_CACHE_DIR": str(cache_dir / "triton"),
        "PYTHONHASHSEED": "0",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def restart_as_worker(module: str) -> None:
    """Start this program over as `python -m module` with the settings that workers have, unless it has them.

    For benchmarks of ours that measure in their own process: allocators and thread pools read these only at the start.
    """
    if QUIET.items() <= os.environ.items():
        return
    settings = worker_environment(processor.cores(), Path(tempfile.mkdtemp(prefix="kerneldyno-")))
    words = [sys.executable, "-P", "-m", module, *sys.argv[1:]]
    os.execve(sys.executable, words, {**os.environ, **settings})  # noqa: S606 - it replaces itself


def cxx_compiler() -> str | None:
    """The C++ compiler that torch.compile would use on the CPU: $CXX, or what is found on the path; None without one."""
    given = shlex.split(os.environ.get("CXX", ""))[:1]
    return next((name for name in [*given, "g++", "clang++", "c++"] if shutil.which(name)), None)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for name in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def commit(checkout: Path = CHECKOUT) -> str | None:
    """The commit of the git checkout that this package is run from, "-dirty" appended if files differ; None elsewhere."""
    top = _git(checkout, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != checkout.resolve():
        return None
    head = _git(checkout, "rev-parse", "HEAD")
    changed = _git(checkout, "status", "--porcelain")
    return head and head + ("-dirty" if changed else "")


def torch_cuda() -> str | None:
    """The CUDA version that the installed torch was built for, e.g. "12.8", without importing it; None for a CPU build."""
    with suppress(importlib.metadata.PackageNotFoundError, OSError):
        text = Path(str(importlib.metadata.distribution("torch").locate_file("torch/version.py"))).read_text()
        match = re.search(r"^cuda\b.*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
        return match.group(1) if match else None
    return None


def _torch_without_cuda() -> str | None:
    """Why the installed torch uses no GPU; None when it does."""
    installed = versions(["torch"]).get("torch")
    if installed is None:
        return "PyTorch is not installed: pip install 'kerneldyno[run]'"
    if torch_cuda() is None:
        return f"the installed PyTorch {installed} is built without CUDA: install a CUDA build of it"
    return None


def _gpu(device: Device) -> dict[str, Any]:
    gpu = next((gpu for gpu in nvml.devices() if gpu.index == device.index), None)
    if gpu is None:
        return {"cuda": torch_cuda()}
    driver = gpu.driver or ""
    return {
        "driver": driver,
        "driver_major": driver.split(".")[0],
        "cuda": torch_cuda(),
        "capability": ".".join(map(str, gpu.capability or ())),
        "memory_bytes": gpu.memory_bytes,
        "power_limit_w": gpu.power_limit_w,
        "max_sm_mhz": gpu.max_sm_mhz,
        "clocks": "set by the user" if "clocks set by the user" in gpu.clock_events() else "not locked",
        "mig": gpu.slice is not None,
        "board": hashed(gpu.uuid),
    }


def _operating_system() -> str:
    """Distribution, kernel and C library: "Debian GNU/Linux 12 (bookworm), Linux 6.1.0, glibc 2.36"."""
    parts = [f"{platform.system()} {platform.release()}", " ".join(platform.libc_ver()).strip()]
    with suppress(OSError):
        parts.insert(0, platform.freedesktop_os_release()["PRETTY_NAME"])
    return scrub(", ".join(part for part in parts if part))


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says there; None when it fails or does not exist."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            env=plain, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
