"""Registrations that are global to a process: of two revisions that make one under the same name, the later silently wins.

They are found in the text, before anything is imported. A name that is built from `__name__` differs between two
revisions loaded side by side, and is fine; a name that cannot be read is taken to be the same in both.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from .sources import PACKAGE, Sources

NAMED = {
    "torch.library.custom_op": "name",
    "torch.library.triton_op": "name",
    "torch.library.define": "qualname",
    "torch.library.impl": "qualname",
    "torch.library.impl_abstract": "qualname",
    "torch.library.Library": "ns",
    "torch.library.register_fake": "op",
    "torch.library.register_kernel": "op",
    "torch.library.register_autograd": "op",
    "torch.library.register_autocast": "op",
    "torch.library.register_vmap": "op",
    "torch.library.register_torch_dispatch": "op",
    "torch.utils.cpp_extension.load": "name",
    "torch.utils.cpp_extension.load_inline": "name",
    "torch.compiler.register_backend": "name",
    "torch._dynamo.register_backend": "name",
    "torch._dynamo.backends.registry.register_backend": "name",
    "torch.utils._pytree.register_pytree_node": "serialized_type_name",
    "torch.utils._pytree._register_pytree_node": "serialized_type_name",
    "torch.utils._pytree.register_dataclass": "serialized_type_name",
    "torch.export.register_dataclass": "serialized_type_name",
    "torch.ops.load_library": "path",
    "torch.nn.attention.register_flash_attention_impl": "impl",
    "jax.ffi.register_ffi_target": "name",
}
"""Function or class -> the argument that says under which name; the first one where the name comes first."""
SHORT_NAMES = {name.rpartition(".")[2] for name in NAMED}
NAMED_LATER = ("register_backend", "register_pytree_node", "_register_pytree_node", "register_dataclass")
"""Functions whose first argument is no name: without a name of its own, that of a function or class is taken."""
DISTINCT = ("__name__", "__package__", "__file__", "__spec__")
"""What differs between two revisions of a module."""
IN_CPP = "TORCH_LIBRARY"
CPP = (".cpp", ".cc", ".cxx", ".cu", ".cuh", ".h", ".hpp")


def global_registrations(folder: Path) -> dict[str, str]:
    """Module ("attention/mine.py") -> what it registers under a name that another revision would take as well."""
    sources = Sources(folder.resolve())
    return {sources.file_of(name): words for name in sources.paths if (words := _registers(sources, name))}


def reasons(sources: Sources) -> dict[str, str]:
    """Implementation module ("attention.mine") -> why it cannot share a process with another revision, in a sentence."""
    return _reasons(sources, sources.implementations, stop=sources.harness)


def reason_of_file(path: Path) -> str | None:
    """The same for a file given with --load: it may import its neighbours, which two revisions would share."""
    sources = Sources(path.resolve().parent, deep=False)
    if path.stem not in sources.paths:
        return None
    if neighbours := sorted(sources.file_of(name) for name in sources.closure([path.stem]) if name != path.stem):
        return f"{path.name} imports {neighbours[0]} beside it under a name that both revisions have"
    return _reasons(sources, [path.stem]).get(path.stem)


def _reasons(sources: Sources, modules: Iterable[str], stop: Iterable[str] = ()) -> dict[str, str]:
    registers = {name: words for name in sources.paths if (words := _registers(sources, name))}
    found = {}
    for module in modules:
        if holding := sorted(sources.closure([module], stop) & registers.keys()):
            found[module] = f"{sources.file_of(holding[0])} {registers[holding[0]]}, which is global to a process"
    return found


def _registers(sources: Sources, module: str) -> str | None:
    """What the module does, to be followed by "which is global to a process"; None when it does nothing of that kind."""
    tree = sources.tree(module)
    if tree is None:
        return None
    if sources.deep and (absolute := _absolute_imports(sources, module)):
        return f"imports {absolute} by its absolute name"
    if not any(word in sources.text(module) for word in (*SHORT_NAMES, IN_CPP)):
        return _in_cpp_files(sources, module)
    names = dict(_imported_names(sources.nodes(module)))
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    called: set[int] = set()
    for node in sources.nodes(module):  # calls come before what they call
        if isinstance(node, ast.Call) and (function := _full_name(node.func, names)) in NAMED:
            called.add(id(node.func))
            if words := _clash(node, str(function), constants, defined):
                return words
        elif isinstance(node, ast.Name | ast.Attribute) and id(node) not in called and (function := _full_name(node, names)) in NAMED:
            return f"uses {function} under a name that cannot be read"
        elif isinstance(node, ast.Constant) and IN_CPP in str(node.value):
            return f"registers operators in C++ ({IN_CPP})"
    return _in_cpp_files(sources, module)


def _clash(call: ast.Call, function: str, constants: dict[str, ast.expr], defined: set[str]) -> str | None:
    """What is wrong with a call of one of NAMED."""
    parameter, short = NAMED[function], function.rpartition(".")[2]
    given = {item.arg: item.value for item in call.keywords}
    name = given.get(parameter) or (call.args[0] if call.args and short not in NAMED_LATER else None)
    if name is None:
        return f"calls {function} without {parameter}="
    if _is_distinct(name, constants):
        return None
    if isinstance(name, ast.Name) and name.id in defined:
        return None  # the operator itself, which was registered under a name that is judged where that happened
    told = repr(name.value) if isinstance(name, ast.Constant) else f"a name that cannot be read ({ast.unparse(name)})"
    return f"registers {told} with {function}"


def _is_distinct(name: ast.expr, constants: dict[str, ast.expr], depth: int = 5) -> bool:
    """Whether an expression is made from something that differs between two revisions of a module."""
    names = {node.id for node in ast.walk(name) if isinstance(node, ast.Name)}
    if names & set(DISTINCT):
        return True
    return depth > 0 and any(_is_distinct(constants[item], constants, depth - 1) for item in names & constants.keys())


def _imported_names(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    """Local name -> full name, of absolute imports."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2 for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _full_name(node: ast.AST, names: dict[str, str]) -> str | None:
    """ "torch.library.custom_op" for what `from torch.library import custom_op as op` calls `op`."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and (owner := _full_name(node.value, names)):
        return f"{owner}.{node.attr}"
    return None


def _absolute_imports(sources: Sources, module: str) -> str | None:
    """A module of ours imported absolutely: in a second revision that would be the first one's. Both share the harness."""
    for node in sources.nodes(module):
        found = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in found:
            inside = f"{name}.".removeprefix(f"{PACKAGE}.")
            if inside != f"{name}." and not any(inside.startswith(f"{shared}.") for shared in sources.harness):
                return name
    return None


def _in_cpp_files(sources: Sources, module: str) -> str | None:
    """C++ beside a module that builds an extension counts as the module's."""
    if sources.deep and "cpp_extension" in sources.text(module):
        for path in sorted(sources.paths[module].parent.rglob("*")):
            if path.suffix in CPP and IN_CPP in path.read_text(encoding="utf-8", errors="replace"):
                return f"registers operators in {path.name} ({IN_CPP})"
    return None
