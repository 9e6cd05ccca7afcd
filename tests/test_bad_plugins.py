"""Wrong losses, written as plugin files: each is caught, by name and line. A right one is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from segkit import losses, plugins
from segkit.plugins import isolated
from segkit.testing import assert_contract
from segkit.testing.plugin import PluginReport, check_plugin

HEAD = """from __future__ import annotations

import torch

from segkit import losses
from segkit.types import Fraction, Tensor

"""
DEFINED = 9  # the line of the decorator below

GOOD = (
    HEAD
    + '''
@losses.register("soft_jaccard")
def soft_jaccard(logits: Tensor, target: Tensor, *, smooth: Fraction = 1.0) -> Tensor:
    """Soft Jaccard: 1 - (sum(p t) + s) / (sum(p) + sum(t) - sum(p t) + s), a mean over cases and channels."""
    p = logits.sigmoid()
    both = (p * target).sum((2, 3))
    union = p.sum((2, 3)) + target.sum((2, 3)) - both
    return 1 - ((both + smooth) / (union + smooth)).mean()
'''
)

# What is wrong: the source after HEAD, the line that is to blame, and words of the finding.
WRONG: dict[str, tuple[str, int, str]] = {
    "wrong shape": (
        """
@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    return (logits.sigmoid() - target).square().mean((2, 3))
""",
        DEFINED,
        "it returns shape (2, 2), not a scalar",
    ),
    "in-place edit": (
        """
@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    p = logits.sigmoid()
    target.mul_(0.9).add_(0.05)
    return torch.nn.functional.binary_cross_entropy(p, target)
""",
        DEFINED + 3,
        "it writes to its target",
    ),
    "detached graph": (
        """
@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    p = logits.sigmoid()
    hard = (p > 0.5).float()
    return (hard - target).abs().mean()
""",
        DEFINED + 3,
        "its value has no gradient",
    ),
    "NaN on empty masks": (
        """
@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    p = logits.sigmoid()
    missed = ((1 - p) * target).sum((2, 3))
    share = missed / target.sum((2, 3))
    return share.mean() + p.mean() - (p * target).mean()
""",
        DEFINED + 4,
        "called with empty masks: its value is nan although the logits are finite",
    ),
    "infinite gradient": (
        """
@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    wrong = (logits.sigmoid() - target).square()
    distance = wrong.mean((2, 3)).sqrt()
    return distance.mean()
""",
        DEFINED + 3,
        "its gradient is not finite, though its value is",
    ),
    "sum instead of mean": (
        """
@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
""",
        DEFINED,
        "it is a sum over the cases of a batch, not a mean",
    ),
    "wrong sign": (
        """
@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    p = logits.sigmoid()
    return (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
""",
        DEFINED,
        "its sign is wrong",
    ),
    "unhinted parameter": (
        """
@losses.register("bad")
def bad(logits: Tensor, target: Tensor, *, gamma=2.0) -> Tensor:
    return ((logits.sigmoid() - target).abs() ** gamma).mean()
""",
        DEFINED,
        "parameter 'gamma' has no type",
    ),
    "mutable default": (
        """
@losses.register("bad")
def bad(logits: Tensor, target: Tensor, *, weights: list[float] = [1.0]) -> Tensor:
    return weights[0] * (logits.sigmoid() - target).square().mean()
""",
        DEFINED,
        "parameter 'weights' has a mutable default",
    ),
    "import error": ("import no_such_package_of_mine\n", DEFINED - 1, "it needs the package 'no_such_package_of_mine'"),
    "name clash": (
        """
@losses.register("Dice-Mix")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    return (logits.sigmoid() - target).square().mean()
""",
        DEFINED,
        "'Dice-Mix' is taken by 'dice_mix' of segkit",
    ),
    "hard-coded device": (
        """
@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    weights = torch.ones(1, 1, 1, 1)
    if torch.cuda.is_available():
        weights = weights.to("cuda:0")
    return (weights * (logits.sigmoid() - target).square()).mean()
""",
        DEFINED + 4,
        "it computes on another device than that of its inputs",
    ),
    "always on the CPU": (
        """
@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    weights = torch.linspace(1, 1, 2).view(1, 2, 1, 1)[:, : logits.shape[1]]
    if logits.shape[1] > 2:
        weights = torch.ones(logits.shape[1]).view(1, -1, 1, 1)
    return (weights * (logits.sigmoid() - target).square()).mean()
""",
        DEFINED + 5,
        "it computes on another device than that of its inputs",
    ),
    "hidden global state": (
        """calls = 0


@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    global calls
    calls += 1
    return (logits.sigmoid() - target).square().mean() * (1 + 1 / calls)
""",
        DEFINED + 2,
        "it remembers earlier calls",
    ),
    "hidden state of an object": (
        """
@losses.register("bad")
class Bad:
    def __init__(self) -> None:
        self.mean = None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        value = (logits.sigmoid() - target).square().mean()
        self.mean = value.detach() if self.mean is None else 0.9 * self.mean + 0.1 * value.detach()
        return value / (self.mean + 0.1)
""",
        DEFINED,
        "it remembers earlier calls",
    ),
    "random numbers": (
        """
@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    chosen = torch.rand_like(logits) > 0.1
    return (chosen * (logits.sigmoid() - target).square()).mean()
""",
        DEFINED + 2,
        "it draws from torch's global random generator",
    ),
    "growing memory": (
        """
history = []


@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    value = (logits.sigmoid() - target).square().mean()
    history.append(value)
    return value
""",
        DEFINED + 3,
        " per call, so memory use grows",
    ),
    "a view of channels-last scores": (
        """
@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    wrong = logits.view(len(logits), -1).sigmoid() - target.flatten(1)
    return wrong.square().mean()
""",
        DEFINED + 2,
        "channels-last memory, as models return them: RuntimeError",
    ),
    "an error of its own": (
        """
def scale(logits: Tensor) -> Tensor:
    return logits / logits.missing


@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    return (scale(logits) - target).square().mean()
""",
        DEFINED + 1,
        "AttributeError",
    ),
    "a part of the gradient is missing": (
        """
@losses.register("bad")
def bad(logits: Tensor, target: Tensor) -> Tensor:
    p = logits.sigmoid()
    weight = (p - target).abs().detach()
    return (weight * (p - target).square()).mean()
""",
        DEFINED + 3,
        "its gradient is wrong",
    ),
}


@pytest.fixture
def _undone() -> Iterator[None]:
    """Take back all that loading a plugin leaves behind."""
    with isolated():
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def checked(folder: Path, source: str) -> PluginReport:
    path = folder / "mine.py"
    path.write_text(source, encoding="utf-8")
    return check_plugin(path)


@pytest.mark.usefixtures("_undone")
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_loss_is_found_with_its_line(what: str, tmp_path: Path) -> None:
    source, line, words = WRONG[what]
    report = checked(tmp_path, HEAD + source)
    found = [finding for finding in report.findings if finding.kind == "fault" and words in finding.text]
    assert found, [str(finding) for finding in report.findings]
    assert found[0].place == f"{tmp_path / 'mine.py'}:{line}"


@pytest.mark.usefixtures("_undone")
def test_a_good_loss_has_no_findings(tmp_path: Path) -> None:
    report = checked(tmp_path, GOOD)
    assert report.findings == []
    assert list(report.checked) == ["loss.soft_jaccard"]
    assert_contract(losses["soft_jaccard"], smooth=0.5)


@pytest.mark.usefixtures("_undone")
def test_assert_contract_lists_every_fault(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HEAD + WRONG["wrong sign"][0], encoding="utf-8")
    plugins.load([tmp_path], entry_points=False)
    with pytest.raises(AssertionError, match=rf"loss 'bad' breaks its contract:\n  .*mine\.py:{DEFINED}: its sign"):
        assert_contract(losses["bad"])


@pytest.mark.usefixtures("_undone")
def test_a_folder_of_plugins_is_checked_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD, encoding="utf-8")
    (tmp_path / "broken.py").write_text("1 +\n", encoding="utf-8")
    (tmp_path / "empty.py").write_text("", encoding="utf-8")
    report = check_plugin(tmp_path)
    assert report.checked == {"loss.soft_jaccard": []}
    assert [(finding.kind, finding.place) for finding in report.failures] == [
        ("fault", f"{tmp_path / 'broken.py'}:1"),
        ("note", str(tmp_path / "empty.py")),
    ]


@pytest.mark.usefixtures("_undone")
def test_a_package_is_one_plugin_and_its_inner_lines_are_named(tmp_path: Path) -> None:
    package = tmp_path / "both"
    package.mkdir()
    (package / "__init__.py").write_text("from segkit_plugins.both import parts\n", encoding="utf-8")
    (package / "formula.py").write_text("def scale(x):\n    return x.missing\n", encoding="utf-8")
    source = HEAD + WRONG["an error of its own"][0].split("\n\n\n")[1]
    (package / "parts.py").write_text(
        source.replace("import torch\n", "from segkit_plugins.both.formula import scale\n"), encoding="utf-8"
    )
    report = check_plugin(package)
    assert list(report.checked) == ["loss.bad"]
    assert report.findings[0].place == f"{package / 'formula.py'}:2"


@pytest.mark.usefixtures("_undone")
def test_an_empty_folder_is_a_fault(tmp_path: Path) -> None:
    report = check_plugin(tmp_path)
    assert [finding.text[:22] for finding in report.findings] == ["no plugin file here: a"]
