"""What problems and kernels have to do with each other: Problem, its tensors, Device, Setup, Gradients.

Import these from `registry`. No torch is imported here at run time.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    import torch

    from ._gradients import Gradients

DTYPES = ("float32", "bfloat16", "float16")
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SHORT_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
DIRECTIONS = ("forward", "backward")
MOST = 2**31 - 1
"""No dimension is larger: torch and Triton index with 32 bits in places."""
OPERATORS = ("attention", "feedforward", "layer")
AWKWARD = "awkward length"
"""How the names of probes begin for which a kernel is built anew, at a length that fits no tile."""


def kind_of(kernel: str, fields: Mapping[str, Any]) -> str:
    """A kernel and everything of a problem's fields but its sizes: what decides which of its code paths run.

    That there is a size at all counts: a window, pages. Which model's layer it is does not.
    """
    words = (
        name if isinstance(value, int) and not isinstance(value, bool) else f"{name}={value}"
        for name, value in sorted(fields.items())
        if name != "given"
    )
    return " ".join([kernel, *words])


Inputs = Any  # one frozen subclass of Tensors per operator, beside its Problem
Weights = Any  # likewise, for operators that have weights; None otherwise
Run = Callable[[Any], Any]  # inputs -> output tensor; in direction "backward" -> Gradients


def holding(run: Run, *tensors: torch.Tensor) -> Run:
    """Mark `run` as keeping these weights alive, so that the weight-bytes column tells what it really holds."""
    run.weight_bytes = sum(t.numel() * t.element_size() for t in tensors)  # type: ignore[attr-defined]
    return run


@dataclass(frozen=True)
class Device:
    """A place where kernels run, as the machine describes it (no torch needed to know it)."""

    kind: str
    """"cpu" or "cuda"."""
    index: int = 0
    name: str = ""
    """Model name, as shown to people."""
    capability: tuple[int, int] | None = None
    """CUDA compute capability, e.g. (9, 0); None on a CPU."""
    memory_bytes: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


@dataclass(frozen=True)
class Tensors:
    """Named tensors that belong together: what inputs and weights of every operator have in common."""

    differentiable: ClassVar[tuple[str, ...]] = ()
    """Fields with respect to which direction "backward" computes gradients."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """The fields that are there, by name."""
        return {item.name: value for item in fields(self) if (value := getattr(self, item.name)) is not None}

    @property
    def differentiated(self) -> dict[str, torch.Tensor]:
        """The differentiable fields that are there, by name."""
        return {name: tensor for name, tensor in self.tensors().items() if name in self.differentiable}

    def replace(self, **changes: Any) -> Self:
        """A copy with other tensors under the given names."""
        return replace(self, **changes)

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """A copy with `change` applied to every tensor: `inputs.map(torch.clone)`, `inputs.map(lambda t: t.to(device))`."""
        return replace(self, **{name: change(tensor) for name, tensor in self.tensors().items()})

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())


@dataclass(frozen=True)
class Setup:
    """What a kernel is built with."""

    device: torch.device
    weights: Weights = None
    """The operator's weights on `device` in the problem's dtype; None for operators without weights."""
    calibration: Inputs = None
    """Inputs of the same problem, drawn from another seed: for pruning scores and static quantization."""
    seed: int = 0
    arena: bool = True
    """False while peak memory is counted: a runtime with a caching allocator of its own turns it off then."""
    profile: Path | None = None
    """Folder into which a runtime with a profiler of its own (ONNX Runtime) writes what it ran; None: it does not."""


class NotAsNamed(Exception):
    """What ran is not what the kernel's name says; the message says what ran instead."""


@dataclass(frozen=True)
class Trace:
    """What was seen to run during the build and one call of a kernel: its `identified` judges it."""

    operators: Mapping[str, int] = field(default_factory=dict)
    """How often each torch operator ("aten::…") and each device kernel ran in the call, by name."""
    nodes: tuple[tuple[str, str], ...] = ()
    """(operator type, execution provider) of each node that ONNX Runtime ran in the call."""
    regions: int = 0
    """Pieces of code compiled by torch.compile that the call entered."""
    graph_breaks: int = 0
    """Places where torch.compile gave up on a graph, in build and call."""
    product_flops: int = 0
    """Multiply-adds counted twice of torch's matrix products and attentions in the call, by the shapes of their operands."""
    eager_flops: int = 0
    """Those of them outside of code compiled by torch.compile."""
    device_watched: bool = True
    """False on a GPU whose own kernels the profiler cannot see: `operators` then holds torch's operators only."""


@dataclass(frozen=True)
class Probe:
    """Inputs on which a particular mistake shows plainly; what is right is the problem's reference for them."""

    name: str
    """What a failure means, in a few words: "a key that must not be seen"."""
    inputs: Inputs
    """As large as the problem's own; made of `inputs` that the problem drew."""
    problem: Problem | None = None
    """Another problem of the operator for which the kernel is built anew, such as one of an awkward length."""
    zeros: torch.Tensor | None = None
    """bool, broadcastable to the output: true where it must be exactly 0."""
    slack: float = 1.0
    """How many times the usual error is right: more where rounding alone moves the answer, and mistakes move it far more."""
    optional: bool = False
    """A kernel may refuse these inputs by raising, but not answer wrongly: inputs of unusual strides."""


@dataclass(frozen=True, kw_only=True)
class Problem(ABC):
    """One size of one operator. It knows its mathematics; a kernel knows only how."""

    dtype: str = "float32"
    direction: str = "forward"

    operator: ClassVar[str]
    directions: ClassVar[tuple[str, ...]] = ("forward",)
    added_later: ClassVar[tuple[str, ...]] = ()
    """Fields that came after runs had been published: at their defaults they are left out, so that cases keep the names that they had."""

    rows: ClassVar[torch.Tensor | None] = None
    """Positions on the sequence axis that `reference`, `naive` and `gradients` answer for; None: all. See `at`."""

    def __post_init__(self) -> None:
        """Raise ValueError with one clear sentence for an impossible problem; subclasses add their own checks."""
        for item in fields(self):
            if item.type in (bool, "bool") and not isinstance(getattr(self, item.name), bool):
                raise ValueError(f"{item.name} {getattr(self, item.name)!r} is impossible: give true or false")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} is unknown: choose from {', '.join(DTYPES)}")
        if self.direction not in self.directions:
            known = ", ".join(self.directions)
            raise ValueError(f"direction {self.direction!r} is not defined for {self.operator}: choose from {known}")

    def require_positive(self, *names: str) -> None:
        """Raise ValueError when one of the named fields is not a whole number of at least 1."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} {value!r} is impossible: give a whole number of at least 1")
            if value > MOST:
                raise ValueError(f"{name} {value} is impossible: give at most {MOST}")

    def at(self, rows: torch.Tensor | None) -> Self:
        """This problem with right answers for these query rows only: int64 [count], ascending.

        Outputs of `reference` and `naive` then have `count` rows on the sequence axis. `gradients` are those of an
        `inputs.grad` that is zero in all other rows: of the first input's gradient it gives these rows, of all others everything.
        """
        chosen = copy.copy(self)
        object.__setattr__(chosen, "rows", rows)
        return chosen

    def fields(self) -> dict[str, Any]:
        """Every field that was asked for, by name, in declaration order: plain values that can be written to JSON."""
        given = {item.name: (getattr(self, item.name), item.default) for item in fields(self)}
        return {name: value for name, (value, usual) in given.items() if value != usual or name not in self.added_later}

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(batch, sequence length): the two axes along which reports lay problems out."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Query tokens worked on in one call."""

    @property
    def summands(self) -> int:
        """How many numbers one of the output is a sum of, where that is a long sum of its own."""
        return 1

    @property
    def row_count(self) -> int:
        """Length of the sequence axis of inputs and output: query tokens of one batch row."""
        return self.tokens // self.shape[0]

    def output_shape(self, inputs: Inputs) -> torch.Size:
        """That of the output: of the first input in every operator here."""
        first: torch.Tensor = next(iter(inputs.tensors().values()))
        return first.shape

    @property
    @abstractmethod
    def label(self) -> str:
        """Short and complete enough to tell two problems apart, e.g. "2x8x512x64 causal bf16"."""

    @property
    @abstractmethod
    def features(self) -> frozenset[str]:
        """What a kernel must `accept` to take this problem, e.g. {"causal", "padding"}."""

    @abstractmethod
    def inputs(self, seed: int, device: torch.device | str = "cpu") -> Inputs:
        """Random inputs in the problem's dtype, N(0, 1) unless a field says otherwise; equal seeds give equal values on a device kind."""

    def weights(self, seed: int, device: torch.device | str = "cpu") -> Weights:
        """Random weights, scaled so that activations keep unit variance; None for an operator without weights."""
        return None

    @abstractmethod
    def reference(self, inputs: Inputs, weights: Weights = None) -> torch.Tensor:
        """The right answer, in float64: slow and obvious, in blocks where memory asks for it."""

    @abstractmethod
    def naive(self, inputs: Inputs, weights: Weights = None) -> torch.Tensor:
        """The textbook formula in the problem's own dtype: its error is the yardstick of the error ratio."""

    def gradients(self, inputs: Inputs, weights: Weights = None, *, naive: bool = False) -> Gradients:
        """Float64 (or, if `naive`, same-dtype) output and gradients for `inputs.grad`; NotImplementedError if undefined."""
        raise NotImplementedError(f"{self.operator} defines no backward direction")

    def decided(self, inputs: Inputs, weights: Weights = None) -> Inputs:
        """The same inputs with a gradient of 0 in rows where rounding alone decides between two right gradients: at a kink."""
        return inputs

    def probes(self, inputs: Inputs, seed: int) -> Iterator[Probe]:
        """Inputs on which particular mistakes show plainly, made of `inputs`; random choices follow `seed`."""
        return iter(())

    def disguised(self, inputs: Inputs, seed: int) -> tuple[Inputs, Callable[[Any], Any]]:
        """The same question in other numbers, by a symmetry of the mathematics, and what turns its answer back.

        So a benchmark can ask something new in every round and know the right answer nevertheless. Where the problem has
        no symmetry, the inputs come back as they are.
        """
        return inputs, lambda answer: answer

    def compared(self, output: torch.Tensor, inputs: Inputs) -> torch.Tensor:
        """The part of an output that is defined: rows past a sequence's length may hold anything where a layer says so."""
        return output

    @abstractmethod
    def flops(self) -> int:
        """Multiply-adds counted twice, of the matrix products only; masked-out pairs of a causal problem not counted."""

    @abstractmethod
    def min_bytes(self) -> int:
        """Bytes that any implementation must move once: inputs, weights and outputs."""
