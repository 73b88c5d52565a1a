"""The sections in which planted kernels go through the gate: wrong ones, cheats, approximations that are not what they claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from .. import stats
from ..plan import UsageError
from .examining import Answer, Job, examined
from .findings import Control, Finding, Found
from .plants import Plant, by_name
from .runs import measured

if TYPE_CHECKING:
    from kerneldyno.kernels.registry import Problem

    from ..records import Measurement
    from .context import Context

PACKAGE = __package__
HONEST = "honest"
"""The kernel that cheats do not beat by right."""
NEEDS_A_RUN = "it behaves while it is checked, and a short self-test does not time it"
GAIN = 0.05
"""More than noise."""
MODULES = {
    "attention": ("attention_masks", "attention_numbers", "attention_memory", "attention_caches"),
    "gradients": ("gradients", "feedforward_gradients"),
    "feedforward": ("feedforward_mistakes",),
    "layer": ("layer_mistakes", "decoder_mistakes"),
    "approximations": ("approximations",),
    "cheats": ("cheats", "deferring", "theft", "meddling"),
}
"""Section -> the modules that hold its plants."""


def findings(section: str, context: Context) -> Iterator[Found]:
    """What the gate says of every plant of a section."""
    plants = {f"{PACKAGE}.{name}": by_name(import_module(f"{PACKAGE}.{name}").plants()) for name in MODULES[section]}
    for job, answer in examined(_jobs(section, plants, context), parallel=context.parallel, stop=context.stop):
        plant = plants[answer.source][answer.kernel]
        context.say(f"{plant.title}, {job.problem.label}")
        slipped = section == "cheats" and not plant.right and answer.outcome == "passed" and not context.blind
        if slipped and not context.short:
            yield from _in_a_run(plant, job.problem, context)
        elif slipped and plant.late:
            yield Finding(section=section, plant=plant.title, where="a real run", caught=None, said=NEEDS_A_RUN)
        else:
            yield found(section, plant, job.problem, answer)


def found(section: str, plant: Plant, problem: Problem, answer: Answer) -> Found:
    """A finding, or a control where nothing is wrong with the plant.

    What made a kernel break, neither wrong nor a cheat in the gate's eyes, is not counted as caught: the mistake was not seen.
    """
    where = problem.label
    if plant.right:
        alarm = None if answer.outcome == "unable" else answer.outcome != "passed"
        return Control(section=section, what=plant.title, where=where, alarm=alarm, said=answer.said)
    caught = None if answer.outcome == "unable" else answer.outcome == "refused"
    said = f"{answer.outcome}: {answer.said}" if answer.outcome == "broken" else answer.said
    return Finding(section=section, plant=plant.title, where=where, caught=caught, must=plant.must(problem), said=said)


def _jobs(section: str, plants: Mapping[str, Mapping[str, Plant]], context: Context) -> list[Job]:
    """One for each problem, the largest first, so that none is left alone at the end."""
    at: dict[Problem, list[tuple[str, str]]] = {}
    for source, named in plants.items():
        for name, plant in named.items():
            for problem in plant.places(short=context.short):
                at.setdefault(problem, []).append((source, name))
    jobs = [Job(problem, tuple(kernels), context.device, context.seed, context.look) for problem, kernels in at.items()]
    alone = section == "cheats" and context.device.kind != "cpu"  # there, kernels of one job share a process
    most = 1 if alone else 24
    return [part for job in sorted(jobs, key=lambda job: -job.problem.flops()) for part in _parts(job, most)]


def _parts(job: Job, most: int) -> Iterator[Job]:
    """A job with many kernels in several, so that all processors have something to do."""
    pieces = -(-len(job.kernels) // most)
    for piece in range(pieces):
        yield Job(job.problem, job.kernels[piece::pieces], job.device, job.seed, job.look)


def _in_a_run(plant: Plant, problem: Problem, context: Context) -> Iterator[Found]:
    """What passes the gate may still be seen while it is timed: a real run, beside the honest kernel, decides."""
    name = plant.kernel.name.partition("/")[2]
    fields: dict[str, Sequence[object]] = {key: [value] for key, value in problem.fields().items() if key not in ("kv_heads", "kv_len")}
    try:
        run = measured(
            "contestants.py", (name, HONEST), fields, device=str(context.device), seed=context.seed, stop=context.stop, tick=context.tick
        ).by_kernel
    except UsageError:
        raise  # another run is using the device: nothing was found out
    except Exception as error:  # noqa: BLE001 - whatever brings the harness down is the finding
        said = f"passes the gate, and its run died of {type(error).__name__}: {error}"
        yield Finding(section="cheats", plant=plant.title, where="a real run", caught=False, said=said)
        return
    if name not in run or HONEST not in run or context.stop():
        return
    caught, said = _foiled(plant, run[name], run[HONEST])
    yield Finding(section="cheats", plant=plant.title, where="a real run", caught=caught, said=f"passes the gate; in a run {said}")


def _foiled(plant: Plant, cheat: Measurement, honest: Measurement) -> tuple[bool, str]:
    """Whether its number was refused or, where that is all it is after, gives it no advantage."""
    if cheat.status != "ok":
        return True, f"{cheat.status}: {cheat.reason}"
    if not plant.for_gain or honest.status != "ok":
        return False, "ok"
    speedup = stats.paired_speedup(cheat.processes, honest.processes)
    return speedup.low <= 1 + GAIN, f"ok, and {speedup.estimate:.3f} times as fast as the honest kernel"
