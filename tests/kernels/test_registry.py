from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from kerneldyno.kernels import registry
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.layer.problem import Layer
from kerneldyno.kernels.registry import Device, Gradients, KernelFileError, Problem, Setup, Tensors, kernel

CPU = Device("cpu")
SHIPPED = registry.load()
HEAVY = ("torch", "triton", "onnx", "onnxruntime", "torchao", "jax")

PLUGIN = """
import torch
import torch.nn.functional as F
from kerneldyno.kernels.feedforward.problem import FeedForward, FeedForwardInputs
from kerneldyno.kernels.registry import Run, Setup, kernel


@kernel(FeedForward, accepts=("relu", "layernorm", "bias"))
def mine(problem: FeedForward, setup: Setup) -> Run:
    '''The formula, dropped in from outside.'''
    return lambda inputs: problem.formula(inputs.x, setup.weights)
"""


@dataclass(frozen=True)
class Pair(Tensors):
    differentiable: ClassVar[tuple[str, ...]] = ("a",)
    a: torch.Tensor
    b: torch.Tensor | None = None
    grad: torch.Tensor | None = None


def plugin(folder, text=PLUGIN, name="mine.py"):
    path = folder / name
    path.write_text(text)
    return path


class TestLoading:
    def test_finds_what_is_shipped(self):
        families = {operator: {k.family for k in SHIPPED.values() if k.operator == operator} for operator in registry.OPERATORS}
        everywhere = {"eager", "compiled", "fused", "onnxrt", "int8", "pruned", "sdpa"}
        assert families["attention"] == everywhere | {"block_sparse", "sinks", "flex", "flash_attn2", "flash_attn3", "cudnn", "jax"}
        assert families["feedforward"] == everywhere - {"sdpa"}
        assert families["layer"] == everywhere | {"torch", "unpadded"}

    def test_names_begin_with_the_operator_and_lead_back(self):
        for name, found in SHIPPED.items():
            assert found.name == name
            assert name.startswith(found.operator + "/")
            assert issubclass(found.problem, Problem)

    def test_every_kernel_says_what_it_is_in_a_line(self):
        for name, found in SHIPPED.items():
            assert found.summary, name
            assert "\n" not in found.summary
            assert found.source.endswith(".py"), name

    def test_operators_come_in_order(self):
        operators = [found.operator for found in SHIPPED.values()]
        assert operators == sorted(operators, key=registry.OPERATORS.index)

    def test_every_operator_has_an_exact_kernel_everywhere(self):
        for problem in (Attention(q_len=8), FeedForward(seq_len=8), Layer(seq_len=8)):
            for device in (CPU, Device("cuda", capability=(9, 0))):
                takers = [k for k in SHIPPED.values() if k.problem is type(problem) and not k.why_not(problem, device)]
                assert any(not taker.approximate for taker in takers)

    def test_loading_again_gives_the_same_objects(self):
        assert list(registry.load().values()) == list(SHIPPED.values())


class TestPlugins:
    def test_is_loaded_after_the_shipped_ones_and_works(self, tmp_path):
        kernels = registry.load([plugin(tmp_path)])
        assert list(kernels)[:-1] == list(SHIPPED)
        mine = kernels["feedforward/mine"]
        assert (mine.family, mine.summary) == ("kerneldyno_plugin_mine", "The formula, dropped in from outside.")
        problem = FeedForward(seq_len=3, dim=4, hidden_dim=8)
        assert mine.why_not(problem, CPU) is None
        weights, inputs = problem.weights(0), problem.inputs(1)
        output = mine.build(problem, Setup(torch.device("cpu"), weights))(inputs)
        torch.testing.assert_close(output, problem.naive(inputs, weights))

    def test_may_use_shipped_kernels_without_redefining_them(self, tmp_path):
        text = "from kerneldyno.kernels.feedforward.eager import eager\n" + PLUGIN
        assert list(registry.load([plugin(tmp_path, text)]))[-1] == "feedforward/mine"

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("def mine(:", "mine.py: does not parse: .*line 1"),
            ("1 / 0", "mine.py: raised ZeroDivisionError on import: division by zero"),
            ("import sys; sys.exit(3)", "mine.py: raised SystemExit on import: 3"),
            ("import no_such_package", "raised ModuleNotFoundError on import: No module named 'no_such_package'"),
            ("answer = 42", "mine.py: the file defines no kernel: decorate a build function"),
            (PLUGIN.replace("def mine", "def eager"), "mine.py: a kernel named 'feedforward/eager' exists already"),
            (
                PLUGIN.replace('accepts=("relu", "layernorm", "bias")', "approximate=True"),
                "mine.py: kernel 'mine' is approximate but has no",
            ),
        ],
    )
    def test_what_is_wrong_with_a_file_is_one_sentence(self, text, words, tmp_path):
        with pytest.raises(KernelFileError, match=words) as caught:
            registry.load([plugin(tmp_path, text)])
        assert str(tmp_path) not in str(caught.value)

    def test_missing_and_foreign_files(self, tmp_path):
        with pytest.raises(KernelFileError, match=r"absent.py: there is no such file"):
            registry.load([tmp_path / "absent.py"])
        with pytest.raises(KernelFileError, match=r"there is no such file"):
            registry.load([tmp_path])
        with pytest.raises(KernelFileError, match=r"mine.txt: not a Python file: its name must end in .py"):
            registry.load([plugin(tmp_path, name="mine.txt")])

    def test_two_files_cannot_define_one_name(self, tmp_path):
        with pytest.raises(KernelFileError, match=r"other.py: a kernel named 'feedforward/mine' exists already"):
            registry.load([plugin(tmp_path), plugin(tmp_path, name="other.py")])


DECLARED = """
import json, sys, time
from pathlib import Path
started = time.process_time()
from kerneldyno.kernels import registry
extra = [Path(path) for path in sys.argv[1:]]
declared = registry.load(extra, declarations_only=True)
seconds = time.process_time() - started
imported = sorted({name.partition(".")[0] for name in sys.modules})

def sentences(kernels):
    asked = {"attention": [{"q_len": 8}, {"q_len": 4, "causal": True, "bias": "boolean"}],
             "feedforward": [{"seq_len": 8}, {"seq_len": 8, "dim": 100, "gated": True, "dtype": "bfloat16"}],
             "layer": [{"seq_len": 8}, {"seq_len": 8, "dim": 96, "heads": 3, "mask": "boolean"}]}
    devices = [registry.Device("cpu"), registry.Device("cuda", capability=(9, 0))]
    return {f"{kernel.name} {fields} {device}": kernel.why_not(kernel.problem(**fields), device)
            for kernel in kernels.values() for fields in asked[kernel.operator] for device in devices}

answers = sentences(declared)
light = sorted({name.partition(".")[0] for name in sys.modules})
real = registry.load(extra)
import torch
problem = real["layer/sdpa"].problem(seq_len=4)
run = real["layer/sdpa"].build(problem, registry.Setup(torch.device("cpu"), problem.weights(0)))
print(json.dumps({
    "seconds": seconds, "imported": imported, "light": light, "names": [list(declared), list(real)],
    "same": answers == sentences(real), "shape": list(run(problem.inputs(1)).shape),
    "fields": [[[k.family, k.summary, k.devices, k.dtypes, sorted(k.accepts)] for k in found.values()] for found in (declared, real)],
}))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    path = plugin(tmp_path_factory.mktemp("plugins"))
    done = subprocess.run([sys.executable, "-c", DECLARED, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


class TestDeclarationsOnly:
    def test_imports_nothing_heavy(self, told):
        assert not set(HEAVY) & set(told["imported"])
        assert not set(HEAVY) & set(told["light"])  # nor does asking why not

    def test_is_quick(self, told):
        assert told["seconds"] < 1

    def test_declares_what_the_real_load_does(self, told):
        declared, real = told["names"]
        assert declared == real == [*SHIPPED, "feedforward/mine"]
        assert told["fields"][0] == told["fields"][1]

    def test_refuses_what_the_real_load_does(self, told):
        assert told["same"]

    def test_a_real_load_works_afterwards(self, told):
        assert told["shape"] == [1, 4, 512]


class TestDeclaring:
    def test_defaults(self):
        @kernel(FeedForward)
        def quick(problem, setup):
            """One line.

            More.
            """

        assert (quick.name, quick.operator, quick.summary) == ("feedforward/quick", "feedforward", "One line.")
        assert quick.family == __name__.rpartition(".")[2]
        assert (quick.devices, quick.dtypes, quick.directions) == (("cpu", "cuda"), registry.DTYPES, ("forward",))
        assert not quick.approximate

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"approximate": True}, "'f' is approximate but has no claim: give claim="),
            ({"gradients": "magic"}, "gradients 'magic' is unknown: choose from autograd, kernel"),
            ({"devices": ("tpu",)}, "device 'tpu' is unknown: choose from cpu, cuda"),
            ({"dtypes": ("float8",)}, "dtype 'float8' is unknown"),
            ({"directions": ("sideways",)}, "direction 'sideways' is unknown"),
        ],
    )
    def test_contradictions_are_refused(self, options, words):
        with pytest.raises(KernelFileError, match=words):
            kernel(FeedForward, name="f", **options)(lambda problem, setup: None)


class TestWhyNot:
    def declare(self, **options):
        return kernel(FeedForward, name="f", **{"accepts": ("relu", "layernorm", "bias"), **options})(lambda problem, setup: None)

    @pytest.mark.parametrize(
        ("options", "fields", "sentence"),
        [
            ({}, {}, None),
            ({"devices": ("cuda",)}, {}, "runs on cuda only, not on cpu"),
            ({"requires": ("no_such_package",)}, {}, "needs the Python package no_such_package, which is not installed"),
            ({"requires": ("cpu:no_such_package",)}, {}, "needs the Python package no_such_package, which is not installed"),
            ({"requires": ("cuda:no_such_package",)}, {}, None),
            ({"dtypes": ("float16",)}, {}, "takes float16, not float32"),
            ({"directions": ()}, {}, "has no forward direction"),
            ({}, {"gated": True, "residual": True}, "does not take gated, residual"),
            ({"refuses": lambda problem, device: f"not today on {device}"}, {}, "not today on cpu"),
            ({"refuses": lambda problem, device: None}, {}, None),
        ],
    )
    def test_sentences(self, options, fields, sentence):
        assert self.declare(**options).why_not(FeedForward(seq_len=4, **fields), CPU) == sentence

    def test_what_is_missing_is_said_first(self):
        found = self.declare(devices=("cuda",), refuses=lambda problem, device: "never")
        assert found.missing(CPU) == found.why_not(FeedForward(seq_len=4), CPU)

    def test_a_device_describes_itself(self):
        assert (str(CPU), str(Device("cuda", index=1))) == ("cpu", "cuda:1")


class TestTensors:
    def test_holds_those_that_are_there(self):
        pair = Pair(torch.zeros(2, 3))
        assert list(pair.tensors()) == ["a"]
        assert pair.nbytes == 24
        doubled = pair.map(torch.Tensor.double)
        assert doubled.nbytes == 48
        assert doubled.b is None
        assert pair.replace(b=torch.ones(1)).nbytes == 28
        assert pair.b is None


def test_differentiated_gives_outputs_and_gradients():
    pair = Pair(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), grad=torch.tensor([1.0, 10.0]))
    run = registry.differentiated(lambda inputs: inputs.a**2 * inputs.b)
    with torch.no_grad():
        found = run(pair)
    assert isinstance(found, Gradients)
    assert found.output.tolist() == [3.0, 16.0]
    assert not found.output.requires_grad
    assert {name: gradient.tolist() for name, gradient in found.by_name.items()} == {"a": [6.0, 160.0]}
    assert not pair.a.requires_grad


def test_holding_counts_bytes():
    run = registry.holding(lambda inputs: inputs, torch.zeros(4, dtype=torch.int8), torch.zeros(2, 2))
    assert run.weight_bytes == 4 + 16
    assert run(5) == 5


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4"])
def test_problems_want_whole_numbers(value):
    with pytest.raises(ValueError, match="is impossible: give a whole number of at least 1"):
        FeedForward(seq_len=value)
