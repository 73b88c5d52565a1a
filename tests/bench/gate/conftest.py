"""Small problems, one thread, and the kernels to try the gate on."""

from __future__ import annotations

import pytest
import torch

from kerneldyno.kernels import registry


@pytest.fixture(scope="session")
def kernels():
    return registry.load()


@pytest.fixture(autouse=True)
def _one_thread_without_gradients():
    """Problems this small are slower on several threads, and much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)
