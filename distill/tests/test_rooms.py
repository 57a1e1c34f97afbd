"""The package's rooms: who may know whom, and no circles."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import onebit_distill

PACKAGE = Path(onebit_distill.__file__).parent

#: each may import what stands before it, and nothing behind it
ROOMS = ["errors", "system", "model", "formats", "data", "training", "export", "studies", "cli", "__main__"]


def modules() -> dict[str, Path]:
    """Path of every module by its name within the package; a folder's `__init__.py` has the folder's name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(module: str) -> set[str]:
    """Modules of the package that one imports anywhere, within functions too."""
    path = MODULES[module]
    here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            base = [*here[: len(here) + 1 - node.level], *filter(None, (node.module or "").split("."))]
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                found.add(inner if inner in MODULES else ".".join(base))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            assert not any(name.split(".")[0] == "onebit_distill" for name in names), f"{module} imports by full name"
    # The package itself only knows its version.
    return found - {"", module}


def test_every_folder_is_a_package_that_says_what_it_is_for():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    for folder in folders:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), folder


def test_no_circles():
    graph = {module: imports_of(module) for module in MODULES}
    assert graph["training.trainer"] >= {"data.blocks", "errors", "model.llama"}  # the walk sees something
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)  # raises CycleError, which names the circle


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_only_those_before_it(room):
    inside = [module for module in MODULES if module.split(".")[0] == room]
    assert inside
    for module in inside:
        for imported in imports_of(module):
            assert ROOMS.index(imported.split(".")[0]) <= ROOMS.index(room), f"{module} imports {imported}"


def test_there_are_no_other_rooms():
    assert {module.split(".")[0] for module in MODULES} - {""} == set(ROOMS)
