"""A model's directory as a source of problems: one of each operator for every chosen layer. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerneldyno.kernels import _given_files as files
from kerneldyno.kernels._given_config import GIVEN, ModelError
from kerneldyno.kernels.presets import Preset, Shape, attention, feedforward, layer

from .plan import UsageError

if TYPE_CHECKING:
    from kerneldyno.kernels._given_files import Source
    from kerneldyno.kernels.registry import Problem

    from .records import Case

__all__ = ["ModelError", "chosen"]

FREE = frozenset({"batch", "seq_len", "dtype", "direction", "padding", "q_len", "kv_len", "page_size"})
"""Fields of a problem that a model leaves open."""
DRAWN = 3
"""Batches of different inputs that a kernel sees: two are measured, one is for calibration."""
LIMITS = (("*/flex*", 1), ("*/compiled_tuned", 1))
"""Kernels that take long to build, and in how many groups they are measured unless they are named."""


@dataclass(frozen=True)
class Chosen:
    """A model, and which of its layers are looked at."""

    source: Source
    layers: tuple[int, ...]

    def preset(self, *, batch: int = 1) -> Preset:
        """Attention, feed-forward network and the whole of every chosen layer."""
        return Preset(
            name=self.source.name,
            summary=f"layers {', '.join(map(str, self.layers))} of {self.source.name}, a model of type {self.source.config.model_type}",
            problems=tuple(shape for number in self.layers for shape in self.problems(number, batch)),
            at_most=LIMITS,
        )

    def problems(self, number: int, batch: int = 1) -> tuple[Shape, ...]:
        """One of each operator."""
        config, given = self.source.config, self.source.given(number)
        own = {"given": given} if given else {}
        fields = dict(config.layer)
        network: dict[str, Any] = {name: fields[name] for name in ("dim", "hidden_dim", "activation", "gated", "bias") if name in fields}
        if fields.get("norm_first"):
            network |= {"norm": fields.get("norm", "layernorm"), "epsilon": fields["epsilon"]}
        else:  # a norm that comes after the sum belongs to the layer
            network["norm"] = "none"
        heads = {name: fields[name] for name in ("heads", "kv_heads", "head_dim")}
        sizes = {"batch": batch, "seq_len": config.usual_length}
        return (
            attention(batch=batch, q_len=config.usual_length, causal=fields.get("mask") == "causal", **heads, **own),
            feedforward(**sizes, residual=True, **network, **own),
            layer(**sizes, **fields, **own),
        )

    def require_axes(self, axes: Collection[str]) -> None:
        """Raise UsageError for a field that the model decides."""
        for axis in axes:
            if axis not in FREE:
                option = {"causal": "--causal"}.get(axis, f"--set {axis}")
                raise UsageError(f"{option} does not go with --model: {self.source.name} decides it; free are {', '.join(sorted(FREE))}")

    def require_lengths(self, problems: Iterable[Problem]) -> None:
        """Raise UsageError for a sequence that is longer than the model takes, or than the given inputs are."""
        longest = max(problem.shape[1] for problem in problems)
        config, name = self.source.config, self.source.name
        if longest > config.positions:
            raise UsageError(f"--seq-len {longest} is more than the {config.positions} tokens that {name} takes: give at most as many")
        if config.window and longest > config.window:
            raise UsageError(
                f"--seq-len {longest} is more than the {config.window} keys that a query of {name} sees, and a layer has no window: "
                f"give at most {config.window}"
            )
        if self.source.inputs is not None:
            tensor, shape = files.inputs_of(self.source, self.source.inputs)
            if tensor != "pixel_values" and shape[1] < longest:
                raise UsageError(
                    f"--inputs {self.source.inputs.name}: {tensor} has sequences of {shape[1]}: give --seq-len {shape[1]} or less"
                )

    def notes(self) -> list[str]:
        """What of the numbers is not the model's own, in sentences."""
        name = self.source.name
        if not self.source.files:
            return [f"{name} holds no weights in safetensors format: the shapes are the model's, weights and inputs are drawn at random"]
        if not self.source.embeds and self.source.inputs is None:
            return [f"{name} holds no embeddings: the weights are the model's, what enters its first layer is drawn from N(0, 1)"]
        if self.source.inputs is not None:
            _, shape = files.inputs_of(self.source, self.source.inputs)
            if shape[0] < DRAWN:
                return [
                    f"--inputs {self.source.inputs.name} holds {shape[0]} sequences: where more are needed, as for calibration, "
                    "parts of them or the same ones, shifted, are taken"
                ]
        return []


def chosen(model: Path | None, weights: Path | None, inputs: Path | None, layers: Sequence[str], option: str = "--layers") -> Chosen | None:
    """The model that the options name, checked; None when they name none. Raises UsageError or ModelError.

    `option` is what names the layers.
    """
    if model is None and weights is None:
        if given := next((name for name, value in (("--inputs", inputs), (option, layers)) if value), None):
            raise UsageError(f"{given} goes with --model: it says nothing without a model")
        return None
    source = files.at(model, weights, inputs)
    numbers = _numbers(layers, source.config.layers, option)
    if source.files:
        for number in range(max(numbers) + 1):  # what reaches a layer went through all before it
            source.require(number)
        if source.inputs is not None:
            files.inputs_of(source, source.inputs)
    elif inputs is not None:
        raise UsageError(f"--inputs {inputs.name}: {source.name} holds no weights in safetensors format, through which inputs could go")
    return Chosen(source, numbers)


def _numbers(layers: Sequence[str], count: int, option: str) -> tuple[int, ...]:
    """Layers by number, negative ones from the end; the first, a middle and the last one when none is named."""
    if not layers:
        return tuple(dict.fromkeys((0, count // 2, count - 1)))
    found: list[int] = []
    for word in layers:
        try:
            number = int(word)
        except ValueError:
            raise UsageError(f"{option} {word!r} is not a whole number: write for example 0{',5,-1' * (option == '--layers')}") from None
        if not -count <= number < count:
            raise UsageError(f"{option} {number}: the model has {count} layers: give numbers from 0 to {count - 1}, or from -1 to {-count}")
        found.append(number % count)
    return tuple(dict.fromkeys(found))


def layers_of(cases: Iterable[Case]) -> tuple[str, ...]:
    """Numbers of the layers that a stored run measures, as they are named on the command line."""
    numbers = {found["layer"] for case in cases if (found := GIVEN.fullmatch(str(case.problem.get("given", ""))))}
    return tuple(sorted(numbers, key=int))


def again(cases: Iterable[Case], chosen: Chosen | None) -> None:
    """Raise UsageError unless a stored run finds the weights and inputs that it was planned with."""
    given: dict[str, Any] = {}
    for case in cases:
        if found := GIVEN.fullmatch(str(case.problem.get("given", ""))):
            given[found["name"]] = found["digest"]
    if not given:
        if chosen is not None and chosen.source.files:
            raise UsageError("--model does not go with --resume here: the run has no weights of a model")
        return
    names = " and ".join(given)
    if chosen is None:
        raise UsageError(f"--resume: the run measures weights of {names}, whose place is not recorded: give --model again, and --inputs")
    if set(given.values()) != {chosen.source.digest[: len(next(iter(given.values())))]}:
        raise UsageError(f"--resume: the run measures weights of {names}, and what --model and --inputs name now is not the same")
