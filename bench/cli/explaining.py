"""`kerneldyno explain attention`: what approximate kernels do to the attention itself, as a page with maps."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from .. import flags
from . import named

if TYPE_CHECKING:
    from ..explanation import Explanation
    from ..models import Chosen

EXIT_CODES = """Exit status: 0 the page is written · 2 a mistake in what was asked · 5 a kernel failed (the page says how) ·
130 interrupted (what was found is written)."""

What = Annotated[str, Argument(metavar="OPERATOR", help="attention: the operator that has maps.")]
Kernels = Annotated[
    str | None, Option(help='Kernels whose maps are shown, e.g. "int8,pruned". (default: int8, pruned, block_sparse_25, sinks_25)')
]
Heads = Annotated[str | None, Option(help="Heads, e.g. 0,3. (default: four, spread evenly)")]
Layer = Annotated[str | None, Option(help="Layer of the model, -1 for the last. (default: a middle one)")]
Inputs = Annotated[
    Path | None,
    Option(
        metavar="FILE",
        help="Tensors q, k and v [batch, heads, tokens, head_dim] in safetensors format; with --model what the model reads.",
    ),
]
Out = Annotated[Path, Option(metavar="FILE", help="The page.")]


def explain(
    what: What,
    kernels: Kernels = None,
    heads: Heads = None,
    model: flags.Model = None,
    weights: flags.Weights = None,
    layer: Layer = None,
    inputs: Inputs = None,
    seq_len: flags.SeqLen = None,
    dtype: flags.Dtype = None,
    causal: flags.Causal = None,
    set_: flags.Set = None,
    device: flags.Device = "auto",
    load: flags.Load = None,
    threads: flags.Threads = None,
    seed: flags.Seed = 0,
    out: Out = Path("explain.html"),
    json: flags.Json = None,
) -> None:
    """What does approximation do to attention? The maps of chosen heads, exact beside int8, pruned or sparse, and their difference.

    A kernel's map is what the kernel itself applied: it is run with columns of the identity as values, so that its output is its
    weights. With --model the queries and keys are those of a layer of a real model; without, they are drawn with a structure like
    that of trained models (--set structured=false: N(0, 1)).
    """
    from .. import launch, options
    from ..explain import command
    from ..plan import UsageError

    if what != "attention":
        raise UsageError(f"explain {what!r}: only attention has maps: kerneldyno explain attention")
    of_model = model is not None or weights is not None
    asked = command.Asked(
        kernels=options.words(kernels, "--kernels"),
        heads=options.words(heads, "--heads"),
        axes=options.axes(batch=None, seq_len=seq_len, dtype=dtype, direction=None, others=set_ or [], causal=causal),
        device=device,
        load=tuple(load or ()),
        threads=threads,
        seed=seed,
        model=_layer(model, weights, inputs if of_model else None, layer),
        inputs=None if of_model else inputs,
        command=shlex.join(["kerneldyno", *options.without_paths(sys.argv[1:])]),
    )
    with launch.stop_on_signals() as stop:
        found = command.explain(asked, stop, lambda text: print(text, file=sys.stderr, flush=True))
        _write(found, out, json)
        raise typer.Exit(130 if stop() else 5 if any(kernel.failed for kernel in found.kernels) else 0)


def _layer(model: Path | None, weights: Path | None, inputs: Path | None, layer: str | None) -> Chosen | None:
    """The model with one of its layers."""
    from dataclasses import replace

    chosen = named.model(model, weights, inputs, layer, "--layer")
    if chosen is None or layer is not None:
        return chosen
    return replace(chosen, layers=(chosen.source.config.layers // 2,))


def _write(found: Explanation, out: Path, json: Path | None) -> None:
    """The page, the numbers if they are wanted, and a table. Raises UsageError where they cannot be written."""
    import msgspec
    from rich.console import Console
    from rich.markup import escape

    from kerneldyno.reports import explanation

    from ..plan import UsageError

    console = Console()
    plain = msgspec.structs.replace(found, exact={}, kernels=tuple(msgspec.structs.replace(kernel, maps={}) for kernel in found.kernels))
    try:
        explanation.render(found, out)
        if json is not None:
            json.write_bytes(msgspec.json.format(msgspec.json.encode(plain)) + b"\n")
    except OSError as error:
        raise UsageError(f"{error.filename or out}: cannot be written ({error.strerror}): give another file") from error
    for kernel in found.kernels:
        console.print(f"{kernel.kernel}: {escape(explanation.of_kernel(kernel))}", highlight=False)
    console.print(f"page: {escape(str(out))}", soft_wrap=True, highlight=False)
