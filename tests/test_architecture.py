"""What the parts may know of each other, and other things that only ever get worse by themselves."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import segkit

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "segkit").rglob("*.py"))
# from the ground floor up: a part imports what stands before it, and nothing that stands after it
FLOORS = (
    *("errors", "types", "interrupts", "files", "locks", "leases", "registry", "components", "plugins", "recipe"),
    *("device", "data", "evaluation", "training", "study", "report", "api", "testing", "checks", "cli"),
    *("__init__", "__main__"),
)
HEAVY = ("torch", "numpy", "cv2", "albumentations", "pydantic", "scipy", "matplotlib", "pydicom", "PIL", "jinja2")
LAZY = ("cli", "__init__", "api")  # these import segkit's own modules late, to answer without torch


def name_of(path: Path) -> str:
    """Return a module's full name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def part(name: str) -> str:
    """Return the name below segkit that a module belongs to."""
    return f"{name}.__init__".split(".")[1]


NAMES = {name_of(path): path for path in MODULES}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the modules of segkit and of others that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name for name in inner if name in NAMES)
        if any(name not in NAMES for name in inner):
            yield node.module


@functools.cache
def imports(name: str) -> frozenset[str]:
    """Return the modules of segkit that one imports, anywhere in it, for type checkers too."""
    found = {other for node in ast.walk(tree_of(NAMES[name])) for other in imported(node) if other in NAMES}
    return frozenset(found - {name})


@functools.cache
def is_heavy(name: str) -> bool:
    """Return whether importing a module imports a heavy library."""
    top: set[str] = set()
    for node in _at_import(tree_of(NAMES[name])):
        top |= set(imported(node))
    return any(other.split(".")[0] in HEAVY for other in top) or any(
        is_heavy(other) for other in top if other in NAMES and other != name
    )


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements that run when a module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_import(child)


def test_every_part_has_its_floor() -> None:
    assert {part(name) for name in NAMES} == set(FLOORS)
    assert len(FLOORS) <= 24


def test_dependencies_point_one_way() -> None:
    above = {name: FLOORS[FLOORS.index(part(name)) + 1 :] for name in NAMES}
    assert [f"{name}: {other}" for name in NAMES for other in imports(name) if part(other) in above[name]] == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    finished: set[str] = set()

    def walk(name: str, chain: tuple[str, ...]) -> None:
        assert name not in chain, " -> ".join([*chain[chain.index(name) :], name])
        if name not in finished:
            for other in imports(name):
                walk(other, (*chain, name))
            finished.add(name)

    for name in NAMES:
        walk(name, ())


def test_imports_inside_functions_keep_heavy_libraries_away() -> None:
    light = []
    for name, path in NAMES.items():
        functions = (
            node for node in ast.walk(tree_of(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        )
        inside = [
            other for node in functions for inner in ast.walk(node) for other in imported(inner) if other in NAMES
        ]
        light += [f"{name}: {other}" for other in inside if part(name) not in LAZY and not is_heavy(other)]
    assert light == []


def test_private_names_stay_in_their_module() -> None:
    used = []
    for name, path in NAMES.items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("segkit"):
                used += [
                    f"{path}:{node.lineno}: {a.name}" for a in node.names if a.name.startswith("_") and a.name[1] != "_"
                ]
        modules = {alias.asname or alias.name for node in ast.walk(tree_of(path)) if isinstance(node, ast.ImportFrom)
                   for alias in node.names if f"{node.module}.{alias.name}" in NAMES}  # fmt: skip
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                used += [f"{path}:{node.lineno}: {name}"] if node.attr.startswith("_") and node.attr[1] != "_" else []
    assert used == []


def test_modules_stay_short_and_quiet() -> None:
    wrong = []
    for name, path in NAMES.items():
        lines, tree = len(path.read_text(encoding="utf-8").splitlines()), tree_of(path)
        wrong += [f"{path}: {lines} lines"] if lines > 300 else []
        wrong += [] if ast.get_docstring(tree) else [f"{path}: a module says what it is"]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > 80:
                wrong.append(f"{path}:{node.lineno}: {node.name} has more than 80 lines")
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name) and called.id == "print" and part(name) != "cli":
                wrong.append(f"{path}:{called.lineno}: only the command line prints")
    assert wrong == []


def test_public_things_are_documented() -> None:
    missing = []
    for path in MODULES:
        for node in tree_of(path).body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            overload = public and any(ast.unparse(mark) == "overload" for mark in node.decorator_list)  # type: ignore[attr-defined]
            if public and not overload and not ast.get_docstring(node):  # type: ignore[arg-type]
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert missing == []


def test_the_loop_is_on_one_screen() -> None:
    tree = tree_of(ROOT / "segkit/training/loop.py")
    (train,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "train"]
    assert (train.end_lineno or 0) - train.lineno < 60


def test_the_front_door_is_what_it_says() -> None:
    assert all(hasattr(segkit, name) for name in segkit.__all__)


def test_importing_segkit_costs_nothing_heavy() -> None:
    code = f"import sys, segkit; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_errors_are_tested_by_their_words() -> None:
    vague = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "raises"
            if named and not any(keyword.arg == "match" for keyword in node.keywords):  # type: ignore[attr-defined]
                vague.append(f"{path.relative_to(ROOT)}:{node.lineno}")  # type: ignore[attr-defined]
    assert vague == []
