"""Approximate kernels that do not compute what they claim, and exact ones that approximate in secret."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from kerneldyno.kernels import registry
from kerneldyno.kernels.attention._sparse_band import Band
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.layer.problem import Layer

from . import attention_steps, feedforward_steps, layer_mistakes
from .plants import Plant, in_dtypes, slug

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kerneldyno.kernels.attention.problem import AttentionInputs
    from kerneldyno.kernels.registry import Kernel, Problem, Run, Setup

ATTENTION = in_dtypes(Attention(batch=2, heads=4, q_len=200, head_dim=64), "float32", "bfloat16")
CACHE = in_dtypes(Attention(batch=2, heads=4, kv_heads=2, q_len=2, kv_len=300, head_dim=64), "float32")
LONG = in_dtypes(Attention(heads=2, q_len=1024, causal=True), "float32")
WIDE = in_dtypes(Attention(heads=2, q_len=1024), "float32")  # here fewer blocks stay in any case
NETWORK = in_dtypes(FeedForward(batch=1, seq_len=150, dim=96, hidden_dim=208), "float32", "bfloat16")
LAYER = in_dtypes(Layer(batch=1, seq_len=150, dim=96, heads=4, hidden_dim=208), "float32")
MANY = in_dtypes(Layer(batch=1, seq_len=150, dim=96, heads=12, hidden_dim=208), "float32")
"""So many heads that two ways to choose among them do not agree by chance."""

Build = "Callable[[Any, Setup], Run]"


def posing_as(
    name: str, title: str, build: Callable[[Any, Setup], Run], problems: Sequence[Problem], beyond: Sequence[Problem] = ()
) -> Plant:
    """A kernel that declares and claims what the shipped one of that name does, and does something else."""
    shipped = registry.load()[name]
    made = replace(shipped, name=f"{shipped.operator}/{slug(title)}", build_run=build, prepare=None, requires=(), own_allocator=())
    return Plant(title, made, tuple(problems), tuple(beyond))


def right(name: str, problems: Sequence[Problem]) -> Plant:
    """The shipped kernel itself."""
    return Plant(name, registry.load()[name], tuple(problems), right=True)


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any, Setup], Run]:
    """The shipped kernel with its output changed."""
    shipped = registry.load()[name]

    def build(problem: Any, setup: Setup) -> Run:
        run = shipped.build(problem, setup)
        return lambda inputs: change(run(inputs))

    return build


def of_weights(name: str, change: Callable[[Any], Any]) -> Callable[[Any, Setup], Run]:
    """The shipped kernel built for other weights."""
    shipped: Kernel = registry.load()[name]
    return lambda problem, setup: shipped.build(problem, replace(setup, weights=change(setup.weights)))


def whole_numbers(x: torch.Tensor, levels: int, dims: int | tuple[int, ...]) -> torch.Tensor:
    """Rounded to so many steps on each side of zero, one step size along `dims`."""
    step = x.abs().amax(dims, keepdim=True).clamp_min(1e-30) / levels
    return (x / step).round() * step


def in_integers(levels: int, dims: int | tuple[int, ...], *, centre: bool = True) -> Callable[[Any, Setup], Run]:
    """8-bit attention of another recipe than the shipped one's."""

    def rounded(_: Attention, inputs: AttentionInputs) -> AttentionInputs:
        k = inputs.k.float()
        k = k - k.mean(2, keepdim=True) if centre else k
        return inputs.replace(q=whole_numbers(inputs.q.float(), levels, dims), k=whole_numbers(k, levels, dims))

    return attention_steps.Steps(inputs=rounded).build


def in_a_cache(levels: int, k_dims: int | tuple[int, ...], *, centre: bool = True) -> Callable[[Any, Setup], Run]:
    """A decode step over keys and values in 8 bit of another recipe than the shipped one's."""

    def rounded(_: Attention, inputs: AttentionInputs) -> AttentionInputs:
        k = inputs.k - inputs.k.mean(2, keepdim=True) if centre else inputs.k
        return inputs.replace(k=whole_numbers(k, levels, k_dims), v=whole_numbers(inputs.v, levels, 2))

    return attention_steps.Steps(inputs=rounded).build


def _attention() -> list[Plant]:
    exact = attention_steps.Steps().build
    int8, cache, pruned = "attention/int8", "attention/int8_cache", "attention/pruned"
    single, half = ATTENTION[:1], ATTENTION[1:]  # what 8-bit queries and keys change is less than bfloat16 itself rounds
    return [
        posing_as(int8, "int8 that computes exactly in secret", exact, single, half),
        posing_as(int8, "int8 with one scale for the whole tensor", in_integers(127, (0, 1, 2, 3)), ATTENTION),
        posing_as(int8, "int8 that uses 6 bits", in_integers(31, -1), ATTENTION),
        posing_as(int8, "int8 whose keys are not centred", in_integers(127, -1, centre=False), single, half),
        posing_as(int8, "int8 off by a factor 1.02", changed(int8, lambda o: o * 1.02), ATTENTION),
        posing_as(cache, "8-bit cache that holds everything exactly in secret", exact, CACHE),
        posing_as(cache, "8-bit cache with one scale for all keys", in_a_cache(127, (0, 1, 2, 3)), CACHE),
        posing_as(cache, "8-bit cache whose keys are not centred", in_a_cache(127, -1, centre=False), CACHE),
        posing_as(cache, "8-bit cache of 7 bits", in_a_cache(63, -1), CACHE),
        posing_as(pruned, "pruned that computes exactly in secret", exact, ATTENTION),
        posing_as(pruned, "pruned with other heads", changed(pruned, lambda o: o.roll(1, 1)), ATTENTION),
        posing_as(pruned, "pruned to nothing", changed(pruned, lambda o: 0 * o), ATTENTION),
    ]


def _sparse() -> list[Plant]:
    quarter, sinks = "attention/block_sparse_25", "attention/sinks_25"
    exact, built = attention_steps.Steps().build, {name: found.build_run for name, found in registry.load().items()}
    return [
        posing_as(quarter, "block-sparse that computes exactly in secret", exact, LONG),
        posing_as(quarter, "block-sparse that keeps the nearest keys, whatever they say", built[sinks], LONG),
        posing_as(quarter, "block-sparse that keeps twice as much as it says", built["attention/block_sparse_50"], WIDE),
        posing_as(quarter, "block-sparse that keeps half as much as it says", built["attention/block_sparse_12"], WIDE),
        posing_as(sinks, "sinks without the first keys", attention_steps.Steps(visible=_window_alone).build, LONG),
    ]


def _window_alone(problem: Attention, inputs: AttentionInputs) -> torch.Tensor:
    """The window of the shipped kernel without its first keys."""
    band = Band.of(problem, 4)
    return replace(problem, window=band.window).position_mask(inputs.q.device)


def _networks() -> list[Plant]:
    exact = feedforward_steps.Steps().build
    int8, pruned = "feedforward/int8", "feedforward/pruned"

    def coarse(weights: Any) -> Any:
        return weights.replace(w1=whole_numbers(weights.w1, 7, -1), w2=whole_numbers(weights.w2, 7, -1))

    def shuffled(weights: Any) -> Any:
        return weights.replace(w1=weights.w1.roll(1, 0))

    def others(problem: FeedForward, setup: Setup) -> Run:
        half = problem.hidden_dim // 2
        keep = {"w1": setup.weights.w1[:half], "w2": setup.weights.w2[:, :half], "b1": setup.weights.b1[:half]}
        return feedforward_steps.Steps(weights=lambda *_: setup.weights.replace(**keep).map(torch.Tensor.float)).build(problem, setup)

    layer, heads = layer_mistakes.Steps().build, "layer/pruned_heads_50_activations"
    neurons = "feedforward/pruned_50_activations"
    return [
        posing_as(int8, "int8 that computes exactly in secret", exact, NETWORK),
        posing_as(int8, "int8 with 4-bit weights", of_weights(int8, coarse), NETWORK),
        posing_as(int8, "int8 with rows exchanged", of_weights(int8, shuffled), NETWORK),
        posing_as(pruned, "pruned that computes exactly in secret", exact, NETWORK),
        posing_as(pruned, "pruned with the first neurons instead of the strongest", others, NETWORK),
        posing_as(neurons, "neurons chosen by their weights, not by what they add", registry.load()[pruned].build_run, NETWORK),
        posing_as("layer/int8", "int8 that computes exactly in secret", layer, LAYER),
        posing_as("layer/pruned", "pruned that computes exactly in secret", layer, LAYER),
        posing_as(heads, "heads chosen by their weights, not by what they add", registry.load()["layer/pruned_heads_50"].build_run, MANY),
    ]


def _secret() -> list[Plant]:
    """Declared exact: the cheapest way to be fast."""
    found = []
    for title, build in (
        ("quantizes in secret", in_integers(127, -1)),
        ("prunes in secret", registry.load()["attention/pruned"].build_run),
    ):
        made = registry.kernel(Attention, name=slug(title), family="selftest")(build)
        found.append(Plant(title, made, ATTENTION))
    for title, name in (("quantizes in secret", "feedforward/int8"), ("prunes in secret", "feedforward/pruned")):
        shipped = registry.load()[name]
        made = replace(shipped, name=f"feedforward/{slug(title)}", approximate=False, claim=None)
        found.append(Plant(title, made, NETWORK))
    return found


def plants() -> list[Plant]:
    """All of them, and the shipped kernels themselves."""
    shipped = [
        ("attention/int8", ATTENTION),
        ("attention/int8_cache", CACHE),
        ("attention/pruned", ATTENTION),
        ("feedforward/int8", NETWORK),
    ]
    shipped += [("feedforward/pruned", NETWORK), ("layer/int8", LAYER), ("layer/pruned", LAYER)]
    shipped += [("attention/pruned_25", ATTENTION), ("feedforward/pruned_50_activations", NETWORK)]
    shipped += [("layer/pruned_heads_50_activations", LAYER)]
    shipped += [("attention/block_sparse_25", LONG), ("attention/block_sparse_mass90", LONG), ("attention/sinks_25", LONG)]
    return [*(right(name, problems) for name, problems in shipped), *_attention(), *_sparse(), *_networks(), *_secret()]
