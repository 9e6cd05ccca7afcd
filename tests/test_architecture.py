"""What the parts may know of each other, and other things that only ever get worse by themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import segkit

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "segkit").rglob("*.py"))
SLOTS = (
    "losses",
    "regularizers",
    "optimizers",
    "schedulers",
    "upsamplers",
    "initializers",
    "models",
    "metrics",
    "datasets",
)
COMPONENTS = (*SLOTS, "transforms", "penalties", "interpolation", "unet", "pipeline")
REGISTRY = ("registry", "component", "signatures", "mistakes", "errors", "types", "blame", "source", "watch")
ABOVE = {  # a part, and what it must not import
    REGISTRY: ("recipe", "training", "study", "evaluation", "cli", "api", *COMPONENTS),
    COMPONENTS: ("recipe", "training", "study", "evaluation", "cli", "api", "checks"),
    ("training", "evaluation"): ("study", "cli", "api", "checks"),
    ("study",): ("cli", "api", "checks"),
    ("recipe", "variants", "layers", "slots", "toml", "plugins", "identity"): (
        "study",
        "training",
        "evaluation",
        "cli",
        "api",
    ),
    ("checks", "testing", "api", "schema", "describe"): ("cli",),
}
HEAVY = ("torch", "numpy", "cv2", "albumentations", "pydantic", "scipy", "matplotlib", "pydicom")


def part(path: Path) -> str:
    """Return the name below segkit that a module belongs to."""
    return path.relative_to(ROOT / "segkit").parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Return the parts of segkit that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return {name.split(".")[1] for name in found if name.startswith("segkit.") and name.count(".")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_dependencies_point_one_way(path: Path) -> None:
    for lower, above in ABOVE.items():
        if part(path) in lower:
            reached = imports(path) & set(above) - {part(path)}
            assert not reached, f"{path} imports {reached}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_stay_short_and_quiet(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is"
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    if part(path) != "cli":
        assert "print" not in calls
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno
            assert length <= 80, f"{node.name} is {length} lines long"


def test_public_things_are_documented() -> None:
    missing = []
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):  # type: ignore[arg-type]
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert missing == []


def test_the_loop_is_on_one_screen() -> None:
    tree = ast.parse((ROOT / "segkit/training/loop.py").read_text(encoding="utf-8"))
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
