"""The options of `kerneldyno run`, each with the line that --help shows for it."""

from pathlib import Path
from typing import Annotated

from typer import Option

Preset = Annotated[list[str] | None, Option(help="Named set of problems; repeat for several. `list` shows them. (default: default)")]
Operator = Annotated[str | None, Option(help="Only these operators: attention,feedforward,layer.")]
Kernels = Annotated[str | None, Option(help='Only kernels whose name matches one of these globs: "attention/*,sdpa*".')]
Batch = Annotated[str | None, Option(help="Batch sizes, e.g. 1,4.")]
SeqLen = Annotated[str | None, Option(help="Sequence lengths, e.g. 128,512; the cache length of a decode problem.")]
Dtype = Annotated[str | None, Option(help="float32,bfloat16,float16. (default: float32 on a CPU, bfloat16 on a GPU)")]
Causal = Annotated[bool | None, Option("--causal/--no-causal", help="Causal attention; a causal mask for the layer.")]
Direction = Annotated[str | None, Option(help="forward,backward; backward times a forward and a backward pass.")]
Set = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="FIELD=VALUES",
        help="Any other field of a problem, e.g. head_dim=64,128 or window=128 (the README lists them); repeat for several.",
    ),
]
Model = Annotated[
    Path | None,
    Option(
        metavar="DIR",
        help="Directory of a Hugging Face model (BERT-, Llama- or ViT-like): its shapes, and its weights and activations if it holds them.",
    ),
]
Weights = Annotated[Path | None, Option(metavar="FILE", help="The model's weights, in safetensors format. (default: those in --model)")]
ModelInputs = Annotated[
    Path | None,
    Option(
        "--inputs",
        metavar="FILE",
        help="What the model reads, in safetensors format: input_ids, pixel_values or hidden_states. (default: drawn at random)",
    ),
]
Layers = Annotated[str | None, Option(help="Layers of the model, e.g. 0,5,-1. (default: the first, a middle and the last one)")]
Device = Annotated[str, Option(help="auto, cpu, cuda or cuda:N.")]
Load = Annotated[list[Path] | None, Option(metavar="FILE.py", help="Take the kernels of this file too; repeat for several.")]
Protocol = Annotated[str | None, Option(help="smoke, default or full: how long to sample. (default: the preset's)")]
Processes = Annotated[int, Option(help="Measure every group in so many fresh processes; 3 or more give intervals over processes.")]
Threads = Annotated[int | None, Option(help="CPU threads, for every kernel alike. (default: all cores)")]
Seed = Annotated[int, Option(help="Seed of inputs, weights and the order of rounds.")]
Energy = Annotated[
    str, Option(help="auto: power of every case, joules of the fastest kernels of one shape of each kind; on: joules of all; off.")
]
Budget = Annotated[float | None, Option(metavar="SECONDS", help="Stop in time; the most informative groups come first.")]
BuildTimeout = Annotated[
    float | None, Option(metavar="SECONDS", help="Limit for building one kernel. (default: 180 on a CPU, 300 on a GPU)")
]
CallTimeout = Annotated[float, Option(metavar="SECONDS", help="Limit for one call.")]
Out = Annotated[Path | None, Option(metavar="DIR", help="Folder for the results. (default: runs/DATE-PRESET)")]
Resume = Annotated[
    Path | None,
    Option(metavar="DIR", help="Measure what is missing of this run. Only --load, --budget, --refine-crossovers and the model go with it."),
]
RefineCrossovers = Annotated[
    bool,
    Option(
        "--refine-crossovers",
        help="Afterwards measure lengths between those where the fastest kernel changes, until it is known within 10 %.",
    ),
]
Json = Annotated[Path | None, Option("--json", metavar="FILE", help="Write what was found as JSON, too.")]
