"""Named sets of problems, as plain data: shapes of known models, grids that peers use, the seed's applications.

A preset lists fields of problems; `dtype` is left to the device (float32 on a CPU, bfloat16 on a GPU) unless it is
given. Shapes of models follow their published configurations.
"""

from __future__ import annotations

from ._attention_presets import ATTENTION_PRESETS
from ._network_presets import FEEDFORWARD, LAYERS, LLAMA_8B_LAYER, SMALL_DECODER, SMALL_MLP
from ._shapes import BERT_HEADS, LLAMA_8B, LLAMA_8B_MLP, SEED, SEED_HEADS, Fields, Preset, Shape, attention, feedforward, grid, layer

__all__ = ["NATIVE_DTYPE", "PRESETS", "STARTING_POINTS", "Preset", "Shape", "attention", "feedforward", "layer", "names", "preset"]

NATIVE_DTYPE = {"cpu": "float32", "cuda": "bfloat16"}

# one problem per operator: where free axes start from when no preset is named
STARTING_POINTS: tuple[Shape, ...] = (
    attention(batch=1, q_len=512, **SEED_HEADS),
    feedforward(batch=1, seq_len=512, **SEED),
    layer(batch=1, seq_len=512, heads=8, **SEED),
)

APPROXIMATIONS = ("*/pruned_*", "*/block_sparse_*", "*/sinks_*", "*/sparse_24*", "*/int8_*")
"""Kernels of many kinds or at several shares, which the presets `approximations` and `feedforward` are for: elsewhere once is enough."""

WITHOUT_VNNI = ("*/int8_torchao", 0)
"""Its products take 20 times as long as floating point ones on CPUs without 8-bit instructions."""

_SMOKE = Preset(
    name="smoke",
    summary="one small shape per operator: does everything work here? Under 90 s on 2 cores",
    protocol="smoke",
    at_most=(("*/flex*", 0), ("*/compiled_tuned", 0), *((glob, 0) for glob in APPROXIMATIONS)),
    problems=(
        attention(batch=2, q_len=256, **SEED_HEADS),
        feedforward(batch=2, seq_len=128, **SEED),
        layer(batch=2, seq_len=128, heads=8, **SEED),
    ),
)

_DEFAULT_CPU = Preset(
    name="default",
    summary="the seed's shapes over sequence lengths and batch sizes, with a causal and a decode case",
    at_most=(("*/flex*", 2), ("*/compiled_tuned", 1), WITHOUT_VNNI, *((glob, 1) for glob in APPROXIMATIONS)),
    problems=(
        *(attention(batch=b, q_len=s, **SEED_HEADS) for b, s in [(1, 512), (1, 128), (1, 2048), (4, 512), (4, 128)]),
        attention(batch=1, q_len=512, causal=True, **SEED_HEADS),
        attention(batch=4, q_len=1, kv_len=2048, heads=8, kv_heads=2, head_dim=64),
        *(feedforward(batch=b, seq_len=s, **SEED) for b, s in [(1, 512), (1, 128), (1, 2048), (4, 128)]),
        *(layer(batch=b, seq_len=s, heads=8, **SEED) for b, s in [(1, 512), (1, 128), (4, 128)]),
    ),
)

_DEFAULT_CUDA = Preset(
    name="default",
    summary="prefill, causal, decode and feed-forward at the sizes of current models",
    at_most=(("*/flex*", 2), ("*/compiled_tuned", 1), *((glob, 1) for glob in APPROXIMATIONS)),
    problems=(
        *(attention(batch=b, q_len=s, heads=16, head_dim=128) for b, s in [(4, 4096), (16, 1024), (1, 16384)]),
        *(attention(batch=b, q_len=s, heads=32, head_dim=64, causal=True) for b, s in [(4, 4096), (16, 1024)]),
        attention(batch=1, q_len=8192, causal=True, **LLAMA_8B),
        attention(batch=32, q_len=1, kv_len=4096, **LLAMA_8B),
        *(feedforward(batch=b, seq_len=s, **LLAMA_8B_MLP) for b, s in [(1, 4096), (16, 1)]),
        feedforward(batch=8, seq_len=512, dim=1024, hidden_dim=4096, activation="gelu"),
        *(layer(batch=b, seq_len=s, heads=16, dim=1024, hidden_dim=4096) for b, s in [(8, 512), (1, 2048)]),
        layer(batch=1, seq_len=4096, **LLAMA_8B_LAYER),
    ),
)

_COMPARE_CPU = Preset(
    name="compare",
    summary="a few shapes of each operator, small enough for many fresh processes: what `kerneldyno compare` takes by default",
    at_most=(("*/flex*", 1), ("*/compiled", 2), ("*/compiled_tuned", 0), WITHOUT_VNNI, *((glob, 1) for glob in APPROXIMATIONS)),
    problems=(
        attention(batch=1, q_len=512, **SEED_HEADS),
        attention(batch=2, q_len=256, causal=True, padding=True, **SEED_HEADS),
        attention(batch=4, q_len=1, kv_len=2048, heads=8, kv_heads=2, head_dim=64),
        *(feedforward(batch=b, seq_len=s, **SEED) for b, s in [(1, 256), (4, 64)]),
        layer(batch=1, seq_len=256, heads=8, **SEED),
    ),
)

_COMPARE_CUDA = Preset(
    name="compare",
    summary=_COMPARE_CPU.summary,
    at_most=(("*/flex*", 1), ("*/compiled", 2), ("*/compiled_tuned", 0), *((glob, 1) for glob in APPROXIMATIONS)),
    problems=(
        attention(batch=4, q_len=4096, heads=16, head_dim=128),
        attention(batch=4, q_len=2048, heads=32, head_dim=64, causal=True),
        attention(batch=32, q_len=1, kv_len=4096, **LLAMA_8B),
        feedforward(batch=1, seq_len=4096, **LLAMA_8B_MLP),
        feedforward(batch=8, seq_len=512, dim=1024, hidden_dim=4096, activation="gelu"),
        layer(batch=8, seq_len=512, heads=16, dim=1024, hidden_dim=4096),
    ),
)

_FEATURES = Preset(
    name="features",
    summary="everything a problem can ask for, at small sizes: what `kerneldyno check` looks at by default",
    protocol="smoke",
    problems=(
        *(
            attention(**{"batch": 2, "q_len": 96, "heads": 4, "head_dim": 64, **fields})
            for fields in (
                {},
                {"causal": True},
                {"padding": True},
                {"bias": "additive"},
                {"bias": "boolean"},
                {"causal": True, "padding": True, "kv_heads": 2, "head_dim": 80},
                {"kv_len": 150, "causal": True},
                {"q_len": 1, "kv_len": 300, "causal": True, "kv_heads": 1},
                {"window": 9, "softcap": 5.0},
                {"window": 20, "causal": True, "kv_len": 150, "kv_heads": 2},
                {"q_len": 3, "kv_len": 200, "causal": True, "ragged": True, "kv_heads": 2},
                {"q_len": 2, "kv_len": 200, "ragged": True, "window": 30, "softcap": 5.0, "page_size": 16, "causal": True},
                {"q_len": 40, "kv_len": 150, "causal": True, "page_size": 64, "kv_heads": 2},
                {"causal": True, "kv_heads": 2, "direction": "backward"},
                {"padding": True, "direction": "backward"},
            )
        ),
        *(
            feedforward(**{"batch": 2, "seq_len": 48, "dim": 128, "hidden_dim": 256, **fields})
            for fields in (
                {},
                {"activation": "gelu", "norm": "none", "bias": False},
                {"activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False, "residual": True},
                {"activation": "gelu_tanh", "gated": True},
                {"direction": "backward"},
                {"activation": "gelu", "norm": "rmsnorm", "gated": True, "residual": True, "direction": "backward"},
            )
        ),
        *(
            layer(**{"batch": 2, "seq_len": 64, "dim": 128, "heads": 4, "hidden_dim": 256, **fields})
            for fields in (
                {},
                {"mask": "causal"},
                {"mask": "boolean"},
                {"mask": "causal", "padding": True},
                {"norm_first": True, "activation": "gelu", "padding": True},
                {**SMALL_DECODER, "kv_heads": 2, "dim": 128, "hidden_dim": 256},
            )
        ),
    ),
)

RANDOM_AND_STRUCTURED: tuple[Fields, ...] = ({}, {"structured": True})

_APPROXIMATIONS_CPU = Preset(
    name="approximations",
    summary="what approximations save and cost: prefill and decode on random and structured inputs, and a layer, beside fast exact kernels",
    protocol="smoke",
    at_most=tuple((f"*/{name}", 0) for name in ("eager", "compiled*", "flex*", "sdpa_*", "onnxrt", "onnxrt_mha", "jax", "torch")),
    problems=(
        *(attention(batch=1, q_len=s, **SEED_HEADS, **drawn) for s in (4096, 1024) for drawn in RANDOM_AND_STRUCTURED),
        attention(batch=1, q_len=4096, causal=True, **SEED_HEADS, structured=True),
        *(  # over longer caches SDPA's running sums on a CPU miss the gate in float32, and nothing would have a speedup
            attention(batch=b, q_len=1, kv_len=4096, heads=32, kv_heads=8, head_dim=64, **drawn)
            for b in (1, 4)
            for drawn in RANDOM_AND_STRUCTURED
        ),
        feedforward(batch=1, seq_len=1024, **SEED),
        feedforward(batch=1, seq_len=1024, **SMALL_MLP),
        layer(batch=1, seq_len=1024, heads=8, **SEED),
        layer(batch=1, seq_len=1024, **SMALL_DECODER),
    ),
)

_APPROXIMATIONS_CUDA = Preset(
    name="approximations",
    summary=_APPROXIMATIONS_CPU.summary,
    at_most=tuple((f"*/{name}", 0) for name in ("eager", "compiled*", "flex*", "sdpa_math", "sdpa_efficient", "onnxrt*", "jax", "torch")),
    problems=(
        *(attention(batch=1, q_len=8192, causal=True, **LLAMA_8B, **drawn) for drawn in RANDOM_AND_STRUCTURED),
        *(attention(batch=4, q_len=4096, heads=16, head_dim=128, **drawn) for drawn in RANDOM_AND_STRUCTURED),
        *(
            attention(batch=b, q_len=1, kv_len=s, **LLAMA_8B, **drawn)
            for b, s in [(32, 4096), (8, 32768)]
            for drawn in RANDOM_AND_STRUCTURED
        ),
        feedforward(batch=1, seq_len=4096, **LLAMA_8B_MLP),
        feedforward(batch=1, seq_len=16, **LLAMA_8B_MLP),
        layer(batch=1, seq_len=2048, heads=16, dim=1024, hidden_dim=4096),
    ),
)

PRESETS = {
    preset.name: preset
    for preset in (
        _SMOKE,
        _FEATURES,
        Preset(
            name="seed",
            summary="the layer the project started from: d_model 512, 8 heads, 2048; 10, 128 and 512 tokens",
            problems=(
                *(attention(batch=1, q_len=s, **SEED_HEADS) for s in (10, 128, 512)),
                *(feedforward(batch=1, seq_len=s, **SEED) for s in (10, 128, 512)),
                *(layer(batch=1, seq_len=s, heads=8, **SEED) for s in (10, 128, 512)),
            ),
        ),
        Preset(
            name="bert-base",
            summary="BERT-base, padded batches: 12 heads of 64, feed-forward 768→3072 GELU",
            problems=(
                *(attention(batch=b, q_len=s, padding=True, **BERT_HEADS) for b, s in grid((8, 32), (128, 384, 512))),
                *(
                    feedforward(batch=b, seq_len=s, dim=768, hidden_dim=3072, activation="gelu", norm="none")
                    for b, s in grid((8, 32), (128, 384, 512))
                ),
            ),
        ),
        Preset(
            name="vit",
            summary="ViT-B and ViT-H: 197, 577 and 1024 patches, 12 heads of 64 and 16 of 80",
            problems=(
                *(attention(batch=8, q_len=s, **BERT_HEADS) for s in (197, 577, 1024)),
                *(attention(batch=8, q_len=s, heads=16, head_dim=80) for s in (197, 577, 1024)),
                *(feedforward(batch=8, seq_len=s, dim=1024, hidden_dim=4096, activation="gelu") for s in (197, 577, 1024)),
            ),
        ),
        Preset(
            name="llama-8b-prefill",
            summary="Llama-3-8B prefill: 32 query and 8 key heads of 128, causal; SwiGLU 4096→14336",
            problems=(
                *(attention(batch=1, q_len=s, causal=True, **LLAMA_8B) for s in (2048, 4096, 8192, 16384)),
                *(feedforward(batch=1, seq_len=s, **LLAMA_8B_MLP) for s in (2048, 4096)),
            ),
        ),
        *ATTENTION_PRESETS,
        Preset(
            name="text-generation",
            summary="causal prefill, then one query token against a growing cache",
            problems=(
                *(attention(batch=1, q_len=s, causal=True, **SEED_HEADS) for s in (128, 512, 1024)),
                *(attention(batch=1, q_len=1, kv_len=s, **SEED_HEADS) for s in (128, 512, 1024, 2048)),
                *(layer(batch=1, seq_len=s, heads=8, mask="causal", **SEED) for s in (128, 512)),
            ),
        ),
        Preset(
            name="translation",
            summary="cross-attention: another length for keys than for queries, padded",
            problems=tuple(
                attention(batch=8, q_len=q, kv_len=kv, padding=True, **SEED_HEADS) for q, kv in ((64, 96), (128, 192), (1, 192))
            ),
        ),
        Preset(
            name="question-answering",
            summary="bidirectional, padded batches of 384 tokens: attention, feed-forward and the whole layer",
            problems=(
                *(attention(batch=b, q_len=384, padding=True, **BERT_HEADS) for b in (1, 4, 8)),
                *(feedforward(batch=b, seq_len=384, dim=768, hidden_dim=3072, activation="gelu") for b in (1, 4, 8)),
                *(layer(batch=b, seq_len=384, heads=12, dim=768, hidden_dim=3072, padding=True) for b in (1, 4)),
            ),
        ),
        Preset(
            name="multimodal",
            summary="long mixed sequences of 576 image patches and text",
            problems=(
                *(attention(batch=1, q_len=s, **SEED_HEADS) for s in (704, 1088, 2112)),
                *(feedforward(batch=1, seq_len=s, **SEED) for s in (704, 1088, 2112)),
            ),
        ),
    )
}


BY_DEVICE = {
    "default": (_DEFAULT_CPU, _DEFAULT_CUDA),
    "compare": (_COMPARE_CPU, _COMPARE_CUDA),
    "approximations": (_APPROXIMATIONS_CPU, _APPROXIMATIONS_CUDA),
    "feedforward": FEEDFORWARD,
    "layers": LAYERS,
}
"""Presets whose shapes depend on the device: the CPU's and the GPU's."""


def names() -> tuple[str, ...]:
    """Every name that `--preset` takes."""
    return (*BY_DEVICE, *PRESETS)


def preset(name: str, device_kind: str) -> Preset:
    """The preset of that name for a kind of device; KeyError when there is none."""
    if name in BY_DEVICE:
        cpu, cuda = BY_DEVICE[name]
        return cuda if device_kind == "cuda" else cpu
    return PRESETS[name]
