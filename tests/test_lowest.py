"""The lowest versions that pyproject.toml declares are those that the tests are run with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parents[1]


def test_declared_lower_bounds_are_the_pins_of_the_lowest_set() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {}
    for text in (*project["dependencies"], *project["optional-dependencies"]["test"]):
        found = re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,<[\d.]+)?", text)
        assert found, f"{text} has no lower bound"
        declared[found[1]] = Version(found[2])
    lines = (ROOT / ".ci" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    direct, _, _ = "\n".join(lines).partition("# not direct")
    pinned = dict(line.split("==") for line in direct.splitlines() if not line.startswith("#"))
    assert {name: Version(version) for name, version in pinned.items()} == declared


def test_the_tested_set_is_within_the_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = {name: Version(version) for name, version in (line.split("==") for line in lines)}
    lowest = [line.split("==") for line in (ROOT / ".ci" / "lowest.txt").read_text(encoding="utf-8").splitlines()
              if not line.startswith("#")]  # fmt: skip
    assert all(tested[name] >= Version(version) for name, version in lowest)
