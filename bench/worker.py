"""The child process: reads one request from standard input, measures one group (or the ceilings), and answers.

Started as `python -m kerneldyno.bench.worker DESCRIPTOR`; answers go to that file descriptor.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import signal
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

import msgspec

from .messages import Channel, Finished, Found, Recorder, Request

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Do what the request says; the parent reads what comes of it."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    channel = Channel(int(sys.argv[1]))
    _die_with_the_parent()
    faulthandler.enable()
    warnings.simplefilter("ignore")  # libraries under measurement warn at will; their warnings are not ours
    stop = _Stop(request.stop_after_s)

    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # read when torch is imported: its profiler would greet us on standard error
    import torch

    torch.set_num_threads(request.settings.threads)
    torch.set_grad_enabled(False)
    if request.kind == "ceilings":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing to hand over: stop at once

        from .instruments import ceiling

        channel.say(Found(ceiling.measure(torch.device(request.device), request.dtypes)))
        channel.say(Finished({}))
        return
    _measure(request, channel, stop)


def _measure(request: Request, channel: Channel, stop: _Stop) -> None:
    import torch

    if request.alone:
        _take_over(request)

    from kerneldyno.kernels import registry

    from .compare import loading
    from .gate.state import DRAWN_IN_BUILDS, Snapshot
    from .gate.state import Instruments as StateOfInstruments
    from .instruments import ceiling
    from .instruments.clock import CpuClock
    from .instruments.cudaclock import CudaClock
    from .instruments.energy import find_meter
    from .instruments.watch import find_watch
    from .measure import GroupMeasurer, Instruments, Interrupted

    started = time.perf_counter()
    if all(source.folder is None for source in request.sides.values()):
        registry.load()  # what changes from here on is the doing of the files of --load; revisions bring kernels of their own
    before, tools = Snapshot.now(), StateOfInstruments()
    kernels = (
        loading.entries(request.sides, request.cases, alone=request.alone)
        if request.sides
        else registry.load([Path(path) for path in request.load])
    )
    simulated = None
    if request.trial:  # imported for tuning alone: the kernels of an older revision know nothing of choices
        from .tune import contestants

        kernels, simulated = contestants.entries(request.trial, kernels), contestants.simulated_clock(request.trial)
    import_changes = before.restore(silent=DRAWN_IN_BUILDS) + tools.restore()
    device = torch.device(request.device)
    clock = simulated or (CudaClock(device) if device.type == "cuda" else CpuClock())
    instruments = Instruments(
        clock=clock,
        meter=find_meter(device),
        watch=find_watch(device),
        ceilings=lambda dtype: ceiling.measure(device, sorted({"float32", dtype})),
    )
    with Recorder(Path(request.recorder)) as recorder:
        measurer = GroupMeasurer(request, kernels, channel, recorder, instruments, stop)
        measurer.import_changes = import_changes
        measurer.phases_s["start"] = time.perf_counter() - started
        gc.collect()
        gc.freeze()  # what is alive now stays: later collections need not look at it
        with suppress(Interrupted):
            measurer.check() if request.kind == "check" else measurer.measure()
        channel.say(Finished(measurer.phases_s))  # not after an error of ours: the parent has to see that one
    # interpreters with compiled code and foreign threads loaded have been seen to crash on the way out
    os._exit(0)


def _take_over(request: Request) -> None:
    """Let the installed kernels, registry and problems be those of the only side, before anything imports them."""
    from .compare.alone import load_alone

    (source,) = request.sides.values()
    if source.folder is not None:
        load_alone(Path(source.folder))


class _Stop:
    """True once the parent has asked to stop, or the budget is used up."""

    def __init__(self, after_s: float | None) -> None:
        self._until = None if after_s is None else time.monotonic() + after_s
        self._asked = False
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def __call__(self) -> bool:
        return self._asked or (self._until is not None and time.monotonic() >= self._until)


def _die_with_the_parent() -> None:
    """Have the kernel kill this process when its parent is gone, so that nothing measures on unseen."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
