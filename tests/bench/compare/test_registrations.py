from __future__ import annotations

from pathlib import Path

import pytest

from kerneldyno.bench.compare.registrations import global_registrations, reason_of_file, reasons
from kerneldyno.bench.compare.sources import Sources
from kerneldyno.kernels import registry


def folder(root: Path, **files: str) -> Path:
    for name, text in {"attention/problem.py": "", "registry.py": "", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


CLASHES = {
    "import torch\n@torch.library.custom_op('mine::same')\ndef f(x): ...": "registers 'mine::same' with torch.library.custom_op",
    "from torch.library import custom_op as op\n@op('mine::same', mutates_args=())\ndef f(x): ...": "registers 'mine::same' with",
    "import torch.library as lib\nlib.define('a::b', '(Tensor x) -> Tensor')": "registers 'a::b' with torch.library.define",
    "from torch import library\nL = library.Library('mine', 'DEF')": "registers 'mine' with torch.library.Library",
    "import torch\nNAME = 'a'\ntorch.library.impl(NAME + '::b', 'cpu')": "a name that cannot be read (NAME + '::b')",
    "def build():\n    from torch.utils.cpp_extension import load_inline\n    load_inline(name='ext')": "registers 'ext' with",
    "import torch\nadd = torch.library.custom_op": "uses torch.library.custom_op under a name that cannot be read",
    "from torch._dynamo import register_backend\n@register_backend\ndef mine(gm, inputs): ...": "uses torch._dynamo.register_backend",
    "from torch._dynamo import register_backend\nregister_backend(f)": "calls torch._dynamo.register_backend without name=",
    "import torch\ntorch.utils._pytree.register_pytree_node(C, f, g)": "calls torch.utils._pytree.register_pytree_node without",
    "SOURCE = 'TORCH_LIBRARY(mine, m) {}'": "registers operators in C++ (TORCH_LIBRARY)",
    "from kerneldyno.kernels import _shared": "imports kerneldyno.kernels._shared by its absolute name",
    "import kerneldyno.kernels._shared as s": "imports kerneldyno.kernels._shared by its absolute name",
}


@pytest.mark.parametrize("text", CLASHES)
def test_names_that_both_revisions_would_take_are_found(tmp_path: Path, text: str) -> None:
    found = global_registrations(folder(tmp_path, **{"attention/_ops.py": text, "_shared.py": ""}))
    assert list(found) == ["attention/_ops.py"]
    assert CLASHES[text] in found["attention/_ops.py"]


FINE = [
    "import torch\n@torch.library.custom_op(f'{__name__.replace(chr(46), chr(95))}::f', mutates_args=())\ndef f(x): ...",
    "import torch\nSPACE = 'm' + __name__\nNAME = SPACE + '::f'\nL = torch.library.Library(SPACE, 'DEF')\ntorch.library.define(NAME, 's')",
    "import torch\nL = torch.library.Library(__name__, 'DEF')\n@torch.library.impl(L, 'f')\ndef f(x): ...",
    "import torch\n@torch.library.custom_op(__name__ + '::f')\ndef f(x): ...\n@torch.library.register_fake(f)\ndef g(x): ...",
    "from torch._dynamo import register_backend\nregister_backend(f, name=__name__)",
    "import torch\nx = torch.compile(f)\nimport onnxruntime\ny = onnxruntime.custom_op('same')",
    "# torch.library.custom_op('mine::same')\n",
    "from kerneldyno.kernels.registry import kernel\nfrom kerneldyno.kernels.attention.problem import P",
]


@pytest.mark.parametrize("text", FINE)
def test_others_are_not(tmp_path: Path, text: str) -> None:
    assert global_registrations(folder(tmp_path, **{"attention/_ops.py": text})) == {}


def test_ours_register_nothing() -> None:
    assert global_registrations(registry.KERNELS) == {}


def test_cpp_files_beside_a_module_that_builds_them(tmp_path: Path) -> None:
    text = "from torch.utils import cpp_extension\nA = cpp_extension.load(name=__name__, sources=['a.cpp'])"
    made = folder(tmp_path, **{"attention/mine.py": text, "attention/csrc/a.cpp": "TORCH_LIBRARY_FRAGMENT(mine, m) {}"})
    assert global_registrations(made) == {"attention/mine.py": "registers operators in a.cpp (TORCH_LIBRARY)"}


def test_whoever_imports_one_cannot_share_a_process(tmp_path: Path) -> None:
    files = {
        "_ops.py": "import torch\ntorch.library.define('a::b', 's')",
        "attention/_middle.py": "from .. import _ops",
        "attention/one.py": "def build():\n    from ._middle import x",
        "attention/two.py": "import torch",
    }
    found = reasons(Sources(folder(tmp_path, **files)))
    assert found == {"attention.one": "_ops.py registers 'a::b' with torch.library.define, which is global to a process"}


def test_files_from_outside(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text("")
    for name, text in {"plain": "import torch", "two": "import part", "ops": "import torch\ntorch.library.define('a::b', 's')"}.items():
        (tmp_path / f"{name}.py").write_text("from kerneldyno.kernels._int8 import quantized\n" + text)
    assert reason_of_file(tmp_path / "plain.py") is None
    assert reason_of_file(tmp_path / "absent.py") is None
    assert reason_of_file(tmp_path / "two.py") == "two.py imports part.py beside it under a name that both revisions have"
    assert reason_of_file(tmp_path / "ops.py") == "ops.py registers 'a::b' with torch.library.define, which is global to a process"
