"""Loading plugins: order, isolation, roll-back, sources, and the copies inside checkpoints."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import segkit
from segkit import losses, plugins
from segkit.components import REGISTRIES
from segkit.errors import UserError
from segkit.plugins import loader
from segkit.registry.registry import Registry
from tests import small
from tests.fresh_plugins import fresh

__all__ = ["fresh"]

LOSS = """
from segkit import losses
from segkit.types import Fraction, Tensor

@losses.register("NAME")
def NAME(logits: Tensor, target: Tensor, *, alpha: Fraction = 0.5) -> Tensor:
    "A loss."
    return alpha * logits.sigmoid().mean()
"""


def write(path: str | Path, text: str = LOSS, name: str | None = None) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("NAME", name or path.stem), encoding="utf-8")
    return path


def load(*extra: str | Path) -> list[str]:
    return [str(failure) for failure in plugins.load(extra, entry_points=False)]


def origins() -> list[str]:
    return [plugin.origin for plugin in plugins.loaded()]


class Point:
    """An entry point of an installed package."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value, self.module = name, value, value.split(":")[0]
        self.dist = type("Dist", (), {"name": "their-package"})()


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, *points: Point) -> None:
    """Make modules of `folder` importable, and the entry points known."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: list(points))
    for point in points:
        for name in [name for name in sys.modules if name.split(".")[0] == point.module.split(".")[0]]:
            monkeypatch.delitem(sys.modules, name)


# Which, and in which order.


def test_order_is_plugins_then_folders_as_given_then_entry_points_by_name(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("plugins/b.py", "plugins/a.py", "plugins/sub/c.py", "z/first.py", "y/second.py"):
        write(path, name=f"order_{Path(path).stem}")
    write("site/theirs_b.py")
    write("site/theirs_a.py")
    install(monkeypatch, fresh / "site", Point("b", "theirs_b"), Point("a", "theirs_a:ignored"))
    assert plugins.load(["z", "y"]) == []
    assert origins() == [
        "plugins/a.py", "plugins/b.py", "plugins/sub/c.py", "z/first.py", "y/second.py",
        "their-package (theirs_a:ignored)", "their-package (theirs_b)",
    ]  # fmt: skip
    assert [plugin.components for plugin in plugins.loaded()][2:6] == [
        ("loss.order_c",), ("loss.order_first",), ("loss.order_second",), ("loss.theirs_a",),
    ]  # fmt: skip


def test_private_hidden_and_test_files_are_left_alone(fresh: Path) -> None:
    for name in ("_private", ".hidden", "test_it", "conftest", "tests/inside", "notes/_private", "seen"):
        write(f"plugins/{name}.py", name="only_one")
    (fresh / "plugins/README.md").write_text("no code", encoding="utf-8")
    assert load() == []
    assert origins() == ["plugins/seen.py"]


def test_loading_twice_changes_nothing(fresh: Path) -> None:
    write("plugins/sub/twice.py")
    assert load() == load("plugins") == load("plugins/sub/twice.py") == []
    assert origins() == ["plugins/sub/twice.py"]


def test_a_folder_named_on_purpose_must_exist(fresh: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such plugin folder or \.py file"):
        load("nowhere")


def test_workers_are_told_folders_and_single_files(fresh: Path) -> None:
    write("plugins/one.py")
    write("more/two.py")
    write("single/three.py")
    load("more", "single/three.py")
    assert plugins.folders() == [str(fresh / "plugins"), str(fresh / "more"), str(fresh / "single/three.py")]


def test_load_file_gives_the_plugin_or_says_why_not(fresh: Path) -> None:
    write("plugins/other_is_broken.py", "1 / 0")
    plugin = plugins.load_file(write("plugins/fine.py"))
    assert plugin.components == ("loss.fine",)
    with pytest.raises(UserError, match=r"plugins/other_is_broken\.py:1: ZeroDivisionError"):
        plugins.load_file("plugins/other_is_broken.py")
    with pytest.raises(UserError, match="no such plugin"):
        plugins.load_file("plugins/nothing.py")


# What goes wrong costs only itself.


@pytest.mark.parametrize(
    "text, message",
    [
        ("x = 1\nraise ValueError('no good')", ":2: ValueError: no good"),
        ("x = 1\n\ndef f(:\n    pass", ":3: it is not valid Python: invalid syntax"),
        ("import sys\nsys.exit(3)", ":2: it calls sys.exit(3)"),
        ("import nosuchpackage.part", ":1: it needs the package 'nosuchpackage', which is not installed"),
        ("from . import gone", ":1: ImportError: cannot import name 'gone'"),
        ("from .gone import it", ":1: it imports 'gone', which is not in its folder"),
        ("def f(n): return f(n + 1)\nf(0)", ":1: RecursionError"),
        ("\0", "it is not valid Python: source code string cannot contain null bytes"),
        ("# -*- coding: nosuch -*-", "it is not valid Python: "),
        (LOSS.replace("alpha: Fraction", "alpha"), ":5: parameter 'alpha' has no type."),
        (LOSS.replace("*, ", ""), ":5: parameter 'alpha' must be keyword-only"),
        (LOSS.replace('"NAME"', '"dice"'), ":5: the loss 'dice' is taken by 'dice' of segkit"),
    ],
)
def test_a_broken_plugin_is_told_by_line_and_costs_only_itself(fresh: Path, text: str, message: str) -> None:
    write("plugins/bad.py", text)
    write("plugins/good.py")
    (failure,) = load()
    assert failure.startswith("plugins/bad.py")
    assert message in failure
    assert failure.count("bad.py") == 1
    assert origins() == ["plugins/good.py"]


def test_what_a_broken_plugin_half_registered_is_taken_back(fresh: Path) -> None:
    write(
        "plugins/half.py",
        LOSS + "\nimport segkit\nsegkit.metrics.register('half_too')(lambda prediction, truth, spacing_mm: 0.0)\n1 / 0",
    )
    load()
    assert "half" not in losses
    assert "half_too" not in segkit.metrics
    assert "segkit_plugins.half" not in sys.modules
    with pytest.raises(UserError, match=r"loss\.half: no such loss"):
        losses.build("half")


def test_a_family_that_a_broken_plugin_made_load_stays() -> None:
    def family(registry: Registry) -> None:
        def one() -> None: ...

        import inspect

        registry.add("One", one, inspect.signature(one), doc="", origin="a library")

    registry = Registry("thing", "things", home=__name__, handed=(), called=False, family=family)
    before = registry.snapshot()
    registry.register("own")(lambda: None)
    registry.restore(before)
    assert registry.names() == ["One"]


def test_a_plugin_that_a_broken_one_imported_still_registers(fresh: Path) -> None:
    write("plugins/a_broken.py", "from . import b_fine\n1 / 0")
    write("plugins/b_fine.py")
    assert load() == ["plugins/a_broken.py:2: ZeroDivisionError: division by zero"]
    assert "b_fine" in losses
    assert [plugin.components for plugin in plugins.loaded()] == [("loss.b_fine",)]


def test_a_plugin_may_import_a_later_one(fresh: Path) -> None:
    write("plugins/a_user.py", "from .b_base import b_base\n" + LOSS)
    write("plugins/b_base.py")
    assert load() == []
    assert [plugin.components for plugin in plugins.loaded()] == [("loss.a_user",), ("loss.b_base",)]


def test_ctrl_c_stops_and_takes_back(fresh: Path) -> None:
    write("plugins/half.py", LOSS + "\nraise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        load()
    assert "half" not in losses
    assert "segkit_plugins.half" not in sys.modules


def test_two_components_of_one_name_name_both_files(fresh: Path) -> None:
    write("plugins/a.py", name="same_thing")
    write("plugins/b.py", name="SameThing")
    (failure,) = load()
    assert failure == (
        "plugins/b.py:5: the loss 'SameThing' is taken by 'same_thing' of plugins/a.py:5 "
        "(case, '-' and '_' do not count). Choose another name."
    )


def test_two_files_of_one_name_name_both(fresh: Path) -> None:
    write("plugins/same.py")
    write("more/same.py", name="another")
    (failure,) = load("more")
    assert (
        failure == f"more/same.py: another plugin file has the same name: {fresh}/plugins/same.py. Rename one of them."
    )


def test_a_second_file_of_a_broken_ones_name_is_itself(fresh: Path) -> None:
    write("plugins/same.py", "1 / 0")
    write("more/same.py", name="of_more")
    assert load("more") == ["plugins/same.py:1: ZeroDivisionError: division by zero"]
    assert "of_more" in losses


@pytest.mark.parametrize("name", ["my-loss.py", "2d.py", "my.loss.py"])
def test_a_file_name_that_is_no_module_name_is_refused(fresh: Path, name: str) -> None:
    write(f"plugins/{name}", name="whatever")
    (failure,) = load()
    assert failure.startswith(f"plugins/{name}: ")
    assert "rename it" in failure


def test_a_link_to_a_file_elsewhere_is_a_plugin(fresh: Path) -> None:
    target = write("elsewhere/shared.py", name="linked")
    (fresh / "plugins").mkdir()
    (fresh / "plugins/linked.py").symlink_to(fresh / target)
    assert load() == []
    assert plugins.loaded()[0].components == ("loss.linked",)
    assert list(plugins.loaded()[0].sources) == ["segkit_plugins.linked"]
    assert load(fresh / "plugins/linked.py") == []
    assert plugins.folders() == [str(fresh / "plugins"), str(fresh / "plugins/linked.py")]  # as workers load them


def test_a_link_to_a_file_of_the_folder_is_that_file(fresh: Path) -> None:
    write("plugins/v2/inner.py")
    (fresh / "plugins/current.py").symlink_to(fresh / "plugins/v2/inner.py")
    write("plugins/user.py", "from segkit_plugins.v2.inner import inner\n")
    assert load() == []
    assert [plugin.module for plugin in plugins.loaded()] == ["segkit_plugins.v2.inner", "segkit_plugins.user"]


def test_a_link_to_itself_is_a_failure(fresh: Path) -> None:
    write("plugins/good.py")
    (fresh / "plugins/loop.py").symlink_to(fresh / "plugins/loop.py")
    (failure,) = load()
    assert failure.startswith("plugins/loop.py: ")
    assert "good" in losses


def test_all_that_a_plugin_raises_is_said(fresh: Path) -> None:
    write("plugins/wordy.py", "raise ValueError('\\n\\nNo FOO.\\n\\nSet FOO=1.')")
    assert load() == ["plugins/wordy.py:1: ValueError: No FOO. Set FOO=1."]


def test_a_plugin_in_another_encoding_loads(fresh: Path) -> None:
    text = "# -*- coding: latin-1 -*-\nNAME = 'é'\n"
    (fresh / "plugins").mkdir()
    (fresh / "plugins/latin.py").write_bytes(text.encode("latin-1"))
    assert load() == []
    assert plugins.loaded()[0].sources == {"segkit_plugins.latin": text}


# Packages.


def package(folder: str) -> None:
    write(f"{folder}/__init__.py", "from . import parts")
    write(f"{folder}/parts.py", "from .deeper.base import BASE\n" + LOSS, name="of_package")
    write(f"{folder}/deeper/__init__.py", "")
    write(f"{folder}/deeper/base.py", "BASE = 1\n")


def test_a_folder_with_init_is_one_plugin_with_relative_imports(fresh: Path) -> None:
    package("plugins/mine")
    assert load() == []
    (plugin,) = plugins.loaded()
    assert (plugin.module, plugin.components) == ("segkit_plugins.mine", ("loss.of_package",))
    assert sorted(plugin.sources) == [
        f"segkit_plugins.mine{part}" for part in ("", ".deeper", ".deeper.base", ".parts")
    ]


def test_an_error_deep_in_a_package_is_told_by_its_file(fresh: Path) -> None:
    package("plugins/mine")
    write("plugins/mine/deeper/base.py", "BASE = 1\nBASE.nothing\n")
    (failure,) = load()
    assert failure.startswith("plugins/mine: ")
    assert "deeper/base.py:2: AttributeError" in failure.replace(str(fresh) + "/", "")
    write("plugins/mine2/__init__.py", "from . import parts")
    write("plugins/mine2/parts.py", "x = 1\ny = (\n")
    assert any("mine2/parts.py:2: it is not valid Python" in failure for failure in load())


def test_a_failed_import_inside_a_helper_is_told_by_the_helpers_file(fresh: Path) -> None:
    write("plugins/user.py", "x = 1\nfrom ._helper import y")
    write("plugins/_helper.py", "\n\ndef f(:")
    (failure,) = load()
    assert "plugins/_helper.py:3: it is not valid Python" in failure


# Sources, hashes, and who uses what.


def test_sources_hold_the_helpers_that_a_plugin_imports(fresh: Path) -> None:
    write("plugins/user.py", "from ._helper import HALF\nfrom . import _other\n" + LOSS)
    write("plugins/_helper.py", "HALF = 0.5\ndef late():\n    from ._late import x\n    return x\n")
    write("plugins/_other.py", "")
    write("plugins/_late.py", "x = 1\n")
    write("plugins/_unused.py", "y = 1\n")
    assert load() == []
    (plugin,) = plugins.loaded()
    assert next(iter(plugin.sources)) == "segkit_plugins.user"
    assert set(plugin.sources) == {f"segkit_plugins.{name}" for name in ("user", "_helper", "_late", "_other")}


def test_the_hash_changes_with_the_helper(fresh: Path) -> None:
    def plugin(helper: str) -> plugins.Plugin:
        return plugins.Plugin("m", "m.py", {"m": "from . import h", "m.h": helper}, ())

    assert plugin("x = 1").sha256 == plugin("x = 1").sha256 != plugin("x = 2").sha256


def test_used_by_finds_only_what_a_recipe_uses(fresh: Path) -> None:
    write("plugins/used.py")
    write("plugins/unused.py")
    load()
    recipe = small.recipe("loss.used={}", "loss.dice={}")
    assert [plugin.origin for plugin in plugins.used_by(recipe.components())] == ["plugins/used.py"]


def test_an_entry_point_owns_what_its_package_registers(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("site/their_package/__init__.py", "")
    write("site/their_package/plugin.py", "from their_package import parts\n")
    write("site/their_package/parts.py", LOSS, name="of_theirs")
    write("site/their_package/unrelated.py", "")
    install(monkeypatch, fresh / "site", Point("x", "their_package.plugin"))
    assert plugins.load() == []
    (plugin,) = plugins.loaded()
    assert plugin.components == ("loss.of_theirs",)
    assert list(plugin.sources) == ["their_package.plugin", "their_package", "their_package.parts"]
    assert plugins.used_by([losses.component("of_theirs")]) == [plugin]


@pytest.mark.parametrize(
    "text, message", [("1 / 0", ":1: ZeroDivisionError"), (None, "it needs the package 'their_gone'")]
)
def test_a_broken_entry_point_costs_only_itself(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, message: str
) -> None:
    if text:
        write("site/their_gone.py", text)
    install(monkeypatch, fresh / "site", Point("x", "their_gone"))
    write("plugins/fine.py")
    (failure,) = plugins.load()
    assert str(failure).startswith("their-package (their_gone)")
    assert message in str(failure)
    assert origins() == ["plugins/fine.py"]


# Copies inside checkpoints.


def carried(module: str = "segkit_plugins.kept", **sources: str) -> list[dict[str, Any]]:
    return [{"module": module, "sources": {name.replace("__", "."): text for name, text in sources.items()}}]


def test_sources_of_a_checkpoint_load_and_work_when_the_folder_is_gone(fresh: Path) -> None:
    text = LOSS.replace("NAME", "kept").replace("    return", "    from ._late import x\n    return x +")
    folder = fresh / "copy"
    found = plugins.load_sources(carried(segkit_plugins__kept=text, segkit_plugins___late="x = 1.0\n"), folder)
    assert found == []
    for path in sorted(folder.rglob("*.py")):
        path.unlink()
    import torch

    assert losses.build("kept", {"alpha": 0.5})(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)) == 1.25
    assert plugins.folders() == []


def test_sources_of_a_checkpoint_are_those_of_the_plugin(fresh: Path) -> None:
    package("plugins/mine")
    write("plugins/single.py")
    load()
    stored = json.loads(json.dumps([{"module": p.module, "sources": p.sources} for p in plugins.loaded()]))
    hashes = [plugin.sha256 for plugin in plugins.loaded()]
    for registry in REGISTRIES:
        registry.restore(
            {k: e for k, e in registry.snapshot().items() if not e.factory.__module__.startswith("segkit_plugins")}
        )
    for name in [name for name in sys.modules if name.startswith("segkit_plugins")]:
        del sys.modules[name]
    loader.state.loaded.clear()
    assert plugins.load_sources(stored, fresh / "copy") == []
    assert [plugin.sha256 for plugin in plugins.loaded()] == hashes
    assert "of_package" in losses


def test_a_broken_plugin_here_does_not_keep_a_checkpoints_from_loading(fresh: Path) -> None:
    write("plugins/kept.py", "1 / 0")
    write("plugins/unrelated.py", "1 / 0")
    assert len(load()) == 2
    assert plugins.load_sources(carried(segkit_plugins__kept=LOSS.replace("NAME", "kept")), fresh / "copy") == []
    assert "kept" in losses


def test_a_broken_plugin_of_a_checkpoint_is_reported(fresh: Path) -> None:
    (failure,) = plugins.load_sources(carried(segkit_plugins__kept="\n1 / 0"), fresh / "copy")
    assert str(failure).endswith("kept.py:2: ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    "module",
    [
        "segkit_plugins",
        "segkit_plugins.",
        "segkit_plugins...x",
        "../x",
        "/etc/x",
        "segkit_plugins.../../x",
        "a/b",
        "a\\b",
        "",
        "C:x",
        "x.2",
    ],
)
def test_sources_cannot_leave_the_folder(fresh: Path, module: str) -> None:
    folder = fresh / "deep" / "copy"
    folder.mkdir(parents=True)
    before = sorted(fresh.rglob("*"))
    with pytest.raises(UserError, match="which is not a module name"):
        plugins.load_sources([{"module": module, "sources": {module: "raise SystemExit"}}], folder)
    assert sorted(fresh.rglob("*")) == before


def test_a_checkpoint_must_hold_the_module_it_names(fresh: Path) -> None:
    with pytest.raises(UserError, match=r"lacks the source of its plugin 'segkit_plugins\.kept'"):
        plugins.load_sources(carried(segkit_plugins__other="x = 1"), fresh / "copy")


def test_a_changed_plugin_is_told(fresh: Path) -> None:
    from segkit.plugins import changed_plugins

    write("plugins/mine.py")
    load()
    (plugin,) = plugins.loaded()
    same = {"plugins": [{"module": plugin.module, "sha256": plugin.sha256}]}
    other = {
        "plugins": [{"module": plugin.module, "sha256": "0" * 64}, {"module": "segkit_plugins.gone", "sha256": "1"}]
    }
    assert changed_plugins(same) == []
    assert changed_plugins(other) == [
        f"plugin plugins/mine.py differs from the one this checkpoint was trained with "
        f"(sha256 {plugin.sha256[:12]}, was 000000000000)"
    ]
