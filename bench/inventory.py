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
    kernels = registry.load(load, declarations_only=True)
    best = environment.choose("auto")
    _heading(console, "Devices (--device)")
    for device in environment.find_devices():
        mark = ", chosen by --device auto" if device == best else ""
        console.print(f"  [bold]{device}[/]  {escape(device.name)}{mark}", highlight=False)
    if reason := environment.why_no_gpu():
        console.print(f"  no GPU: {escape(reason)}", highlight=False)
    _heading(console, "Presets (--preset)")
    console.print(_presets(best))
    _heading(console, f"Kernels (--kernels), and whether they run on {best}")
    console.print(_kernels(kernels, best))
    console.print("  ≈ is approximate: its distance from the exact result is measured beside its speed", highlight=False)


def _heading(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/]", highlight=False)


def _grid(*names: str) -> Table:
    table = Table.grid(padding=(0, 2), pad_edge=True)
    for name in names:
        table.add_column(no_wrap=name != "text")
    return table


def _presets(device: Device) -> Table:
    table = _grid("name", "count", "text")
    for name in presets.names():
        preset = presets.preset(name, device.kind)
        table.add_row(f"[bold]{name}[/]", f"{len(preset.problems)} problems", escape(preset.summary))
    return table


def _kernels(kernels: dict[str, Kernel], device: Device) -> Table:
    table = _grid("name", "here", "text")
    for kernel in kernels.values():
        reason = kernel.missing(device)
        here = "[green]yes[/]" if reason is None else "[yellow]no[/]"
        told = [f"{'≈ ' if kernel.approximate else ''}{escape(kernel.summary)}", f"[dim]{escape(_takes(kernel))}[/]"]
        if reason:
            told.insert(0, f"[yellow]{escape(reason)}[/]")
        table.add_row(f"[bold]{escape(kernel.name)}[/]", here, "\n".join(told))
    return table


def _takes(kernel: Kernel) -> str:
    """Features, dtypes and directions in one line."""
    short = [registry.SHORT_DTYPES[dtype] for dtype in kernel.dtypes]
    parts = [", ".join(sorted(kernel.accepts)) or "nothing beyond the plain operator", " ".join(short), " and ".join(kernel.directions)]
    return "; ".join(parts)
