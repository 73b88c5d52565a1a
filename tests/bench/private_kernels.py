"""A plugin whose kernels say where they lie and who runs them, in every way a kernel can speak. Loaded by test_private_runs.py."""

import os
import socket
import sys
import warnings
from pathlib import Path

import torch.nn.functional as F

from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import kernel

UUID = "GPU-1234abcd-12ab-34cd-56ef-123456abcdef"
SERIAL = "1320221012345"
ATTIC = "ferret-attic6"
"""A folder of somewhere else: nothing about this process tells that it is one."""


def secrets():
    user = os.environ["USER"]
    host = socket.gethostname()
    return (
        f"{Path(__file__)} {Path.home()}/notes {Path.cwd()}/x {os.environ['TMPDIR']}/y {user}@{host} {os.environ['HOSTNAME']}:22 "
        f"{UUID} serial: {SERIAL} {elsewhere()}"
    )


def elsewhere():
    """Paths in all forms in which compilers and loaders tell them."""
    path = f"/data/{ATTIC}/lib"
    return (
        f"g++ -I{path}/x -L{path}/ @{path}/args.rsp error:{path}/x.cpp:12 LD_LIBRARY_PATH={path}64:{path}/libx.so file://{path}/x.onnx "
        f"'/home/john {ATTIC}/a b' \"{path} {ATTIC}/x\" 2>{path}/log"
    )


@kernel(Attention)
def talks(problem, setup):
    """Right, and says much on the way."""
    print(secrets(), flush=True)
    warnings.warn(secrets(), stacklevel=1)

    def run(inputs):
        return F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v, enable_gqa=problem.grouped)

    return run


@kernel(Attention)
def raises(problem, setup):
    """Raises where it is called."""

    def run(inputs):
        raise FileNotFoundError(2, "No such file or directory", secrets())

    return run


@kernel(Attention)
def unbuildable(problem, setup):
    """Raises where it is built."""
    raise RuntimeError(secrets())


@kernel(Attention)
def dies(problem, setup):
    """Ends its process with last words."""

    def run(inputs):
        print(secrets(), file=sys.stderr, flush=True)
        os._exit(3)

    return run


@kernel(Attention, refuses=lambda problem, device: f"its table is not at {secrets()}")
def refuses(problem, setup):
    """Takes no problem."""


def as_named(problem, setup, trace):
    return f"library at {secrets()}"


@kernel(Attention, identified=as_named)
def identified(problem, setup):
    """Right, and tells what it is."""

    def run(inputs):
        return F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v, enable_gqa=problem.grouped)

    return run
