"""Real runs in real worker processes, in a temporary folder: what became of each kernel of a plugin."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import launch
from ..journal import read
from ..terminal import Quiet

if TYPE_CHECKING:
    from ..records import Measurement

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """What a run made of its kernels."""

    by_kernel: Mapping[str, Measurement]
    """By the name without the operator."""
    ended: str
    environment: Any


def measured(
    plugin: str,
    kernels: Sequence[str],
    axes: Mapping[str, Sequence[Any]],
    *,
    device: str,
    seed: int,
    protocol: str = "smoke",
    processes: int = 1,
    build_timeout_s: float = 60.0,
    call_timeout_s: float = 30.0,
    stop: Callable[[], bool],
    tick: Callable[[], None] = lambda: None,
) -> Outcome:
    """Measure some attention kernels of a file beside this one, as `kerneldyno run --load FILE` would."""
    with tempfile.TemporaryDirectory(prefix="kerneldyno-") as folder:
        chosen = launch.Options(
            operators=("attention",),
            kernels=tuple(f"attention/{name}" for name in kernels),
            axes={name: list(values) for name, values in axes.items()},
            device=device,
            load=(HERE / plugin,),
            protocol=protocol,
            processes=processes,
            seed=seed,
            energy="off",
            build_timeout_s=build_timeout_s,
            call_timeout_s=call_timeout_s,
            out=Path(folder) / "run",
        )
        where, ended = launch.launch(chosen, Quiet(tick), stop)
        stored = read(where)
    cases = {case.id: case.kernel.partition("/")[2] for case in stored.manifest.cases}
    return Outcome({cases[key]: measurement for key, measurement in stored.measurements.items()}, ended, stored.manifest.environment)
