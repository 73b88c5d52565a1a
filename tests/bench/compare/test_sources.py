from __future__ import annotations

from pathlib import Path

import pytest

from kerneldyno.bench.compare.sources import Sources
from kerneldyno.kernels import registry

COMPOSE = """
from importlib import import_module
def part(name):
    operator, _, family = name.partition("/")
    return import_module(f"...{operator}.{family}", __name__)
def helper(x):
    return x
"""
FOLDER = {
    "registry.py": "from ._standin import x",
    "_standin.py": "",
    "_shared.py": "from ._deep import y",
    "_deep.py": "",
    "attention/__init__.py": '"""Doc."""',
    "attention/problem.py": "from ..registry import Problem\nfrom ._probes import p\nfrom ._formula import f",
    "attention/_probes.py": "",
    "attention/_formula.py": "",
    "attention/one.py": "from .problem import P\nfrom ._formula import f\ndef build():\n    from .. import _shared",
    "attention/two.py": "from ..registry import kernel\nif TYPE_CHECKING:\n    from .._shared import y\nelse:\n    from . import _late",
    "attention/_late.py": "import json",
    "layer/problem.py": "from ..attention.problem import P",
    "layer/_compose.py": COMPOSE,
    "layer/named.py": "from ._compose import part as p\nA = p('attention/one')",
}


def made(folder: Path, **files: str) -> Sources:
    for name, text in (FOLDER | files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Sources(folder)


def test_imports_of_every_kind(tmp_path: Path) -> None:
    sources = made(tmp_path)
    assert sources.imports("attention.one") == {"attention", "attention.problem", "attention._formula", "_shared"}
    assert sources.imports("attention.two") == {"attention", "registry", "attention._late"}
    assert sources.imports("layer.problem") == {"attention", "attention.problem"}


def test_closures_follow_and_stop(tmp_path: Path) -> None:
    sources = made(tmp_path)
    own = {"attention", "attention.one", "attention._formula", "_shared", "_deep"}
    assert sources.closure(["attention.one"], stop=sources.harness) == own
    assert sources.closure(["layer.named"], stop=sources.harness) == own | {"layer.named", "layer._compose"}
    assert "attention._probes" in sources.closure(["attention.one"])


def test_the_harness_is_what_no_kernel_imports_itself(tmp_path: Path) -> None:
    assert made(tmp_path).harness == {"registry", "_standin", "attention.problem", "attention._probes", "layer.problem"}


@pytest.mark.parametrize(
    ("text", "also"),
    [
        ("from ._compose import part\nA = part('attention/two')", {"attention.two", "attention._late"}),
        ("from . import _compose\nA = _compose.part('attention/two')", {"attention.two", "attention._late"}),
        ("from ._compose import helper\nA = helper('attention/two')", set()),
        ("from importlib import import_module\nA = import_module('..attention.two', __package__)", {"attention.two", "attention._late"}),
        ("from importlib import import_module\nA = import_module('...attention.two', __name__)", {"attention.two", "attention._late"}),
        ("from importlib import import_module\nA = import_module('triton')", set()),
        ("import kerneldyno.kernels.attention.two as t", {"attention.two", "attention._late"}),
        ("from kerneldyno.kernels.attention import two", {"attention.two", "attention._late"}),
    ],
)
def test_what_is_composed_by_name(tmp_path: Path, text: str, also: set[str]) -> None:
    sources = made(tmp_path, **{"layer/mine.py": text})
    found = sources.closure(["layer.mine"], stop=sources.harness)
    assert found - {"layer.mine", "layer._compose", "attention"} == also


@pytest.mark.parametrize(
    "text",
    [
        "from ._compose import part\nA = part('attention/' + x)",
        "from ._compose import part\nA = part('attention/none')",
        "from ._compose import part\nA = [part('attention/two'), part(name='attention/one')]",
        "from ._compose import part\nA = list(map(part, ['attention/two']))",
        "from . import _compose\nparts = _compose.part",
        "from importlib import import_module\nA = import_module(f'..attention.{x}', __package__)",
        "from importlib.util import spec_from_file_location\nA = spec_from_file_location('two', path)",
        "A = __import__(name)",
    ],
)
def test_where_no_name_can_be_read_everything_counts(tmp_path: Path, text: str) -> None:
    sources = made(tmp_path, **{"layer/mine.py": text})
    assert {"attention.one", "attention.two", "attention._late", "_deep"} <= sources.closure(["layer.mine"], stop=sources.harness)


def test_layers_of_ours_depend_on_the_parts_they_name() -> None:
    sources = Sources(registry.KERNELS)
    for name in sources.implementations:
        parts = {item for item in sources.closure([name], stop=sources.harness) if item in sources.implementations} - {name}
        composed = {
            "eager": {"attention.eager", "feedforward.eager"},
            "fused": {"attention.fused", "feedforward.fused"},
            "int8": {"attention.fused", "feedforward.int8"},
            "onnxrt": set(),
            "onnxrt_fused": set(),
            "unpadded": set(),
            "encoder": set(),
        }.get(name.removeprefix("layer."), {"attention.sdpa", "feedforward.eager"})
        assert parts == (composed if name.startswith("layer.") else set()), name


CODE = 'def f(x):\n    """Doc."""\n    # why\n    return x + 1\n\n\nSIZE = 3\n"""Of it."""\n'


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (CODE, True),
        ("SIZE_ = 0\n" + CODE, False),
        ('"""Module."""\ndef f(x):  # other\n\n    return (x\n        + 1)\nSIZE = 3', True),
        (CODE.replace("+ 1", "+ 2"), False),
        (CODE.replace("SIZE = 3", "SIZE = 3.0"), False),
        (CODE.replace("SIZE = 3", 'SIZE = "3"'), False),
        (CODE.replace('"""Doc."""', "pass"), False),
        (CODE.replace("return x + 1", "return x + 1 +"), False),
    ],
)
def test_only_code_counts(tmp_path: Path, text: str, same: bool) -> None:
    one = made(tmp_path / "a", **{"attention/one.py": CODE})
    two = made(tmp_path / "b", **{"attention/one.py": text})
    assert (one.digest("attention.one") == two.digest("attention.one")) is same


def test_a_function_of_nothing_but_a_docstring_stays_one(tmp_path: Path) -> None:
    one = made(tmp_path / "a", **{"attention/one.py": 'def f():\n    """One."""\n'})
    two = made(tmp_path / "b", **{"attention/one.py": 'def f():\n    """Two."""\n'})
    assert one.digest("attention.one") == two.digest("attention.one")


def test_old_strings_do_not_warn(tmp_path: Path) -> None:
    assert made(tmp_path, **{"attention/one.py": 'A = "\\d"'}).imports("attention.one") == {"attention"}


def test_data_and_what_is_none(tmp_path: Path) -> None:
    files = {"attention/tiles.json": "{}", "README.md": "r", "py.typed": "", "__pycache__/x.json": "", ".git/x": "", "top.csv": "1"}
    assert set(made(tmp_path, **files).data) == {"attention/tiles.json", "top.csv"}


def test_files_from_outside_name_their_neighbours(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import torch\nimport part\nfrom kerneldyno.kernels.registry import kernel")
    (tmp_path / "part.py").write_text("from sub import x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "__init__.py").write_text("")
    assert Sources(tmp_path, deep=False).closure(["mine"]) == {"mine", "part"}
