"""What a device says of itself, asked in a process of its own: the parent of what is measured holds no CUDA context."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from kerneldyno.kernels._cards import Card

from ..environment import DeviceError

if TYPE_CHECKING:
    from kerneldyno.kernels.registry import Device

PATIENCE_S = 180.0


def card_of(device: Device) -> Card:
    """The card behind a CUDA device. Raises DeviceError where torch cannot tell."""
    environment = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    command = [sys.executable, "-P", "-m", __name__, str(device)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        capability, multiprocessors, l2_bytes = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        raise DeviceError(f"device {device} does not say what it is ({type(error).__name__}): does torch.cuda work there?") from error
    return Card((capability[0], capability[1]), multiprocessors, l2_bytes)


def main() -> None:
    """Print the card of the device that is named."""
    import torch

    card = Card.of(torch.device(sys.argv[1]))
    print(json.dumps([card.capability, card.multiprocessors, card.l2_bytes]))


if __name__ == "__main__":
    main()
