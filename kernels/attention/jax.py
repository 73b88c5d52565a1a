"""JAX's own attention, jax.nn.dot_product_attention, compiled by XLA."""

from __future__ import annotations

import importlib.util
import operator
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

from .._jaxsession import compiled, ran_executable
from ..registry import Device, Gradients, Run, Setup, kernel
from ._masks import blind
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    from collections.abc import Callable

    Arrays = dict[str, Any]
    Attend = Callable[..., Any]

NAME = "dot_product_attention"
"""What the compiled function is called."""
CUDA_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")


def refuses(problem: Attention, device: Device) -> str | None:
    """What JAX does not take: float16 on a CPU, a single bfloat16 query and key there, and a GPU without its plugin."""
    if device.kind == "cpu" and problem.dtype == "float16":
        return "jax.nn.dot_product_attention takes float32 and bfloat16 on a CPU, not float16"
    if device.kind == "cpu" and problem.dtype == "bfloat16" and problem.q_len == problem.kv_len == 1:
        return "XLA does not compile bfloat16 products of a single query and a single key on a CPU"
    if device.kind == "cuda" and not any(importlib.util.find_spec(name) for name in CUDA_PLUGINS):
        return "the installed jax has no CUDA: pip install 'jax[cuda13]'"
    return None


@kernel(
    Attention,
    accepts=("causal", "padding", "bias", "mask", "window", "ragged", "paged"),
    directions=("forward", "backward"),
    gradients="kernel",
    requires=("jax",),
    own_allocator=True,
    refuses=refuses,
    identified=ran_executable(NAME),
)
def jax(problem: Attention, setup: Setup) -> Run:
    """JAX's dot_product_attention compiled by XLA, reading torch's memory; its causal mode and window serve equal lengths.

    On a CPU the heads are mapped over (jax.vmap), which keeps our layout; on a GPU they are transposed to JAX's, which
    cuDNN takes as it is where it takes the problem, and the call waits for the GPU. Other masks are explicit, pages are
    gathered in the call, and gradients are those of jax.vjp.
    """
    names = tuple(setup.calibration.tensors())
    examples = tuple(setup.calibration.tensors().values())
    if setup.device.type == "cpu":
        call = compiled(_function(problem, names, _head_by_head), examples, setup)
    else:
        try:
            call = compiled(_function(problem, names, partial(_transposed, implementation="cudnn")), examples, setup)
        except (ValueError, RuntimeError):  # what cuDNN does not take; what runs, the identity tells
            call = compiled(_function(problem, names, _transposed), examples, setup)

    def run(inputs: AttentionInputs) -> Any:
        given = inputs.tensors()
        found = call(*[given[name] for name in names])
        return found if problem.direction == "forward" else Gradients(found[0], dict(zip("qkv", found[1], strict=True)))

    return run


def _function(problem: Attention, names: tuple[str, ...], attend: Attend) -> Callable[..., Any]:
    """Arrays in the order of `names` -> output, or in direction "backward" (output, (gradients of q, k and v))."""
    import jax

    def dot_product_attention(*arrays: Any) -> Any:
        given = dict(zip(names, arrays, strict=True))
        if problem.direction == "forward":
            return _attention(problem, given, attend)
        output, pull_back = jax.vjp(lambda q, k, v: _attention(problem, {**given, "q": q, "k": k, "v": v}, attend), *arrays[:3])
        return output, pull_back(given["grad"])

    assert dot_product_attention.__name__ == NAME
    return dot_product_attention


def _attention(problem: Attention, given: Arrays, attend: Attend) -> Any:
    import jax.numpy as jnp

    q, k, v = given["q"], given["k"], given["v"]
    if problem.page_size:
        k, v = (_gathered(pool, given["block_table"], problem.kv_len) for pool in (k, v))
    bias, mask, lengths = given.get("bias"), given.get("mask"), given.get("lengths")
    native: dict[str, Any] = {"scale": problem.scale, "is_causal": False}
    position = _position_mask(problem, lengths) if problem.positional else None
    if problem.positional and not (problem.cross or problem.ragged):  # its own modes align to the top left
        native["is_causal"] = problem.triangular
        if problem.window:
            native["local_window_size"] = (problem.window - 1, 0 if problem.causal else problem.window - 1)
        seen = mask
    else:
        seen = _together(position, mask)
    output = attend(q, k, v, bias=bias, mask=seen, lengths=lengths, **native)
    if not blind(problem):
        return output
    padding = None if lengths is None else (jnp.arange(problem.kv_len) < lengths[:, None])[:, None, None]
    visible = _together(position, mask, padding, None if bias is None else bias > -jnp.inf)
    return jnp.where(visible.any(-1, keepdims=True), output, jnp.zeros_like(output))  # JAX gives the mean of all values


def _head_by_head(q: Any, k: Any, v: Any, *, bias: Any, mask: Any, lengths: Any, **native: Any) -> Any:
    """The function of one head, mapped over batch rows, key-value heads, and the heads that share one."""
    import jax
    import jax.numpy as jnp

    groups = (q.shape[0], k.shape[1], q.shape[1] // k.shape[1])
    every = (*q.shape[:3], k.shape[2])

    def spread(pairs: Any) -> Any:
        return None if pairs is None else jnp.broadcast_to(pairs, every).reshape(*groups, *every[2:])

    def one(q: Any, k: Any, v: Any, bias: Any, mask: Any, length: Any) -> Any:
        more = {name: pairs[None] for name, pairs in (("bias", bias), ("mask", mask)) if pairs is not None}
        more |= {} if length is None else {"key_value_seq_lengths": length[None]}
        return jax.nn.dot_product_attention(q[:, None], k[:, None], v[:, None], **more, **native)[:, 0]

    shared = jax.vmap(one, (0, None, None, 0, 0, None))
    mapped = jax.vmap(jax.vmap(shared, (0, 0, 0, 0, 0, None)))
    return mapped(q.reshape(*groups, *q.shape[2:]), k, v, spread(bias), spread(mask), lengths).reshape(q.shape)


def _transposed(q: Any, k: Any, v: Any, *, bias: Any, mask: Any, lengths: Any, implementation: str = "xla", **native: Any) -> Any:
    """In JAX's layout, [batch, sequence, heads, head_dim]."""
    import jax

    q, k, v = (tensor.transpose(0, 2, 1, 3) for tensor in (q, k, v))
    attention: Any = jax.nn.dot_product_attention
    output = attention(q, k, v, bias=bias, mask=mask, key_value_seq_lengths=lengths, implementation=implementation, **native)
    return output.transpose(0, 2, 1, 3)


def _position_mask(problem: Attention, lengths: Any) -> Any:
    """As Attention.position_mask, of JAX: bool [1 or batch, 1, q_len, kv_len]."""
    import jax.numpy as jnp

    past = lengths[:, None, None, None] - problem.q_len if problem.ragged else problem.kv_len - problem.q_len
    position = jnp.arange(problem.q_len)[None, None, :, None] + past
    keys = jnp.arange(problem.kv_len)
    before = keys > position - problem.window if problem.window else None
    after = keys <= position if problem.causal else keys < position + problem.window
    return _together(before, after)


def _together(*masks: Any) -> Any:
    """What all of the masks that are there let through; None when there is none."""
    there = [mask for mask in masks if mask is not None]
    return reduce(operator.and_, there) if there else None


def _gathered(pool: Any, table: Any, kv_len: int) -> Any:
    """[pages, kv_heads, page_size, head_dim] and a block table -> [batch, kv_heads, kv_len, head_dim]."""
    rows = pool[table].swapaxes(1, 2)
    return rows.reshape(*rows.shape[:2], -1, pool.shape[-1])[:, :, :kv_len]
