"""What `kerneldyno list` shows: devices, presets, kernels, and what does not run here and why. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kerneldyno.kernels import presets, registry

from . import environment

if TYPE_CHECKING:
    from kerneldyno.kernels.registry import Device, Kernel


def show(console: Console, load: Sequence[Path]) -> None:
    """Print everything that can be chosen on this machine."""
    devices = environment.find_devices()
    best = environment.choose("auto")
    for device in devices:
        mark = " (chosen by --device auto)" if device == best else ""
        console.print(f"[bold]{device}[/] {escape(device.name)}{mark}", highlight=False)
    console.print(_presets(best))
    console.print(_kernels(registry.load(load, declarations_only=True), best))


def _presets(device: Device) -> Table:
    table = Table(title="Presets (--preset)", title_justify="left")
    table.add_column("preset", no_wrap=True)
    table.add_column("problems", justify="right")
    table.add_column("what it is")
    for name in presets.names():
        preset = presets.preset(name, device.kind)
        table.add_row(name, str(len(preset.problems)), escape(preset.summary))
    return table


def _kernels(kernels: dict[str, Kernel], device: Device) -> Table:
    table = Table(title=f"Kernels (--kernels), as they run on {device}", title_justify="left")
    table.add_column("kernel", no_wrap=True)
    table.add_column("here")
    table.add_column("accepts")
    table.add_column("what it is")
    for kernel in kernels.values():
        reason = kernel.missing(device)
        here = "[green]yes[/]" if reason is None else f"no: {escape(reason)}"
        features = ", ".join(sorted(kernel.accepts)) or "–"
        if "backward" in kernel.directions:
            features += "; backward"
        approximate = "≈ " if kernel.approximate else ""
        table.add_row(escape(kernel.name), here, escape(features), escape(approximate + kernel.summary))
    return table
