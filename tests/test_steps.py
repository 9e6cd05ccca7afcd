"""The step of a training: what a plugin's owns goes on to the bit, and what is wrong with one is said."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import segkit
from segkit import UserError, plugins
from segkit.components.datasets.case import Dataset
from segkit.components.schedulers import Schedule
from segkit.data.cache import DataCache
from segkit.device import choose
from segkit.registry.faults import ComponentError
from segkit.training import checkpoint
from segkit.training.average import Average
from segkit.training.flatten import flatten
from segkit.training.levels import Levels
from segkit.training.loop import State, train
from segkit.training.loss_watch import NonFiniteError
from segkit.training.objective import Objective
from segkit.training.setup import Setup, set_up
from segkit.training.training_step import TrainingStep
from segkit.training.trial import Limit
from segkit.types import Batch, Forward, Losses, Scores
from tests import small
from tests.fresh_plugins import EXAMPLES, fresh

__all__ = ["fresh"]

CPU = choose("cpu", "float32")
FOLDER = Path("only/seed-1")


class Adversarial(nn.Module):
    """Masks as a discriminator takes them for truths (Luc et al. 2016); it has an optimizer and rates of its own."""

    calls: Tensor

    def __init__(self, *, weight: float = 0.1) -> None:
        super().__init__()
        self.weight, self.batches = weight, 0

    def prepare(self, model: nn.Module) -> None:
        self.discriminator = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3))
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=1e-3)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
        scores = model(batch.image)
        made, one = objective.probabilities(scores), functional.softplus
        if self.batches % 2:  # every other batch
            judged = self.discriminator(torch.cat([made.detach(), batch.target]))
            self.optimizer.zero_grad()
            (one(judged[: len(made)]).mean() + one(-judged[len(made) :]).mean()).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.schedule.step()
        self.batches += 1
        fooled = self.weight * one(-self.discriminator(made)).mean()
        return {"fooled": fooled, **objective(scores, batch.target)}

    def updated(self, model: nn.Module) -> None:
        self.calls += 1


class Headed(nn.Module):
    """A head learns from the returned losses; its optimizer steps at every second update, so gradients are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.updates = 0

    def prepare(self, model: nn.Module) -> None:
        self.head = nn.Conv2d(2, 1, 1)
        self.optimizer = torch.optim.SGD(self.head.parameters(), lr=0.1)

    def forward(self, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
        scores = model(batch.image)
        return {**objective(scores, batch.target), "head": self.head(scores).square().mean()}

    def updated(self, model: nn.Module) -> None:
        self.updates += 1
        if self.updates % 2 == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()


class Critic(nn.Module):
    """Judges probabilities; it has an optimizer of its own, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.seen = nn.Conv2d(2, 1, 3), 0
        self.optimizer = torch.optim.Adam(self.conv.parameters(), lr=0.1)

    def forward(self, probabilities: Tensor) -> Tensor:
        return self.conv(probabilities).sigmoid().mean()  # type: ignore[no-any-return]

    def learn(self, probabilities: Tensor) -> None:
        self.seen += 1
        self.optimizer.zero_grad()
        (self.seen * self(probabilities)).backward()
        self.optimizer.step()


class Judged(nn.Module):
    """Owns a critic, which owns what moves it."""

    def prepare(self, model: nn.Module) -> None:
        self.critics = nn.ModuleList([Critic()])

    def __init__(self) -> None:
        super().__init__()

    def forward(self, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
        scores = model(batch.image)
        made, critic = objective.probabilities(scores), self.get_submodule("critics.0")
        assert isinstance(critic, Critic)
        critic.learn(made.detach())
        return {**objective(scores, batch.target), "judged": critic(made)}


class Levelled(nn.Module):
    """A network that returns scores of two resolutions in training."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.fine, self.coarse = nn.Conv2d(4, out_channels, 1), nn.Conv2d(4, out_channels, 2, stride=2)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        features = self.conv(image).relu()
        fine: Tensor = self.fine(features)
        return (fine, self.coarse(features)) if self.training else fine


def half_labelled(*, patients: int = 6) -> Dataset:
    """The discs; the last two patients have no masks."""
    found = small.discs(patients=patients)
    cases = [case if number < 2 * patients - 4 else _bare(case) for number, case in enumerate(found.cases)]
    return Dataset("half_labelled", found.channels, tuple(cases))


def _bare(case: segkit.Case) -> segkit.Case:
    return segkit.Case(case.name, case.patient, case.image, None, case.spacing_mm)


@pytest.fixture
def parts(fresh: Path) -> None:
    """Register what these tests train with."""
    segkit.steps.register("adversarial")(Adversarial)
    segkit.steps.register("headed")(Headed)
    segkit.steps.register("judged")(Judged)
    segkit.models.register("levelled")(Levelled)
    segkit.datasets.register("half_labelled")(half_labelled)
    plugins.load_file(EXAMPLES / "mean_teacher.py")


BRIEF = ("train.epochs=2", "transforms={ train = [{ RandomCrop = { height = 16, width = 16 } }] }")
KILLED = {
    "average": ("train.ema=0.8", "train.accumulate=2"),
    "levels": ("model={ levelled = {} }", "train.auxiliary_weights=[2, 1]", "train.ema=0.5", "channels=exclusive"),
    "mean teacher": ("step=mean_teacher", "data={ half_labelled = {} }", "train.ema=0.8"),
    "discriminator": ("step=adversarial", "train.clip_norm=1.0"),
    "head": ("step=headed",),
    "critic": ("step=judged",),
}


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_training_goes_on_to_the_bit(name: str, parts: None, tmp_path: Path) -> None:
    sets, kinds = (*BRIEF, *KILLED[name]), list[str]()
    assert small.train(tmp_path / "whole", *sets)[-1].kind == "finished"
    for steps in (0, 1):
        kinds.append(small.train(tmp_path / "killed", *sets, stop_after=steps)[-1].kind)
    kinds.append(small.train(tmp_path / "killed", *sets)[-1].kind)
    assert kinds == ["interrupted", "interrupted", "finished"]
    whole, killed = (tmp_path / run / FOLDER for run in ("whole", "killed"))
    assert (whole / "best.safetensors").read_bytes() == (killed / "best.safetensors").read_bytes()
    assert (whole / "cases.csv").read_bytes() == (killed / "cases.csv").read_bytes()
    assert _ended(whole) == _ended(killed)


def _ended(folder: Path) -> dict[str, Any]:
    """Return all that last.safetensors holds but the clock, comparable by ==."""
    found = checkpoint.load(folder / "last.safetensors", with_state=True)
    kept = sorted(found.state.keys() - {"history", "seconds"})
    tensors, rest = flatten({"weights": dict(sorted(found.weights.items())), **{key: found.state[key] for key in kept}})
    return {"rest": rest} | {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def test_what_is_kept_and_evaluated_is_the_average(parts: None, tmp_path: Path) -> None:
    small.train(tmp_path / "plain", *BRIEF)
    small.train(tmp_path / "average", *BRIEF, "train.ema=0.9")
    plain = checkpoint.load(tmp_path / "plain" / FOLDER / "last.safetensors").weights
    found = checkpoint.load(tmp_path / "average" / FOLDER / "last.safetensors", with_state=True)
    assert all(torch.equal(found.state["raw_weights"][name], weight) for name, weight in plain.items())
    assert not torch.equal(found.weights["head.weight"], plain["head.weight"])
    buffers = [name for name in plain if "running" in name]
    assert buffers
    assert all(torch.equal(found.weights[name], plain[name]) for name in buffers)


def test_the_average_is_the_formula() -> None:
    model = nn.Linear(2, 1)
    average, expected = Average(model, 0.3), model.weight.detach().clone()
    for step in range(5):
        with torch.no_grad():
            model.weight.add_(1.0)
        average.update(step)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(average.model.get_parameter("weight").detach(), expected)


def _batches(count: int = 4, size: int = 2) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, size, 1, 16, 16, generator=generator)
    masks = (torch.rand(count, size, 2, 16, 16, generator=generator) > 0.7).float()
    return [Batch(*pair, torch.ones(size, dtype=torch.bool)) for pair in zip(images, masks, strict=True)]


class Fixed:
    """Batches that are given."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches, self.steps_per_epoch = batches, len(batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        yield from self.batches[start:]


def _state(step: type[nn.Module] | None = None, **losses: dict[str, Any]) -> State:
    """Return the beginning of a training of a small network by a step."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    chosen = [segkit.losses.component(name, values) for name, values in (losses or {"dice": {}}).items()]
    penalties = [segkit.regularizers.component("l2", {"weight": 0.01})]
    parts = {}
    if step is not None:
        segkit.steps.register("tried")(step)
        parts["step"] = segkit.steps.component("tried")
    training_step = TrainingStep(parts.get("step"))
    training_step.prepare(model, torch.device("cpu"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    objective = Objective(chosen, penalties, model, exclusive=False)
    plan = Schedule.constant(optimizer)
    return State(model, optimizer, plan, CPU.scaler(), objective, training_step=training_step, parts=parts)


def _run(state: State, batches: list[Batch] | None = None, **options: Any) -> dict[str, float]:
    """Train for an epoch and return the losses of its last report."""
    return list(train(state, Fixed(batches or _batches()), CPU, epochs=1, **options))[-1].losses


class Step(nn.Module):
    """A step that is the supervised one, to be changed."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
        return objective(model(batch.image), batch.target, batch.labelled)


def test_a_step_that_does_the_same_gives_the_same_weights(fresh: Path) -> None:
    losses: dict[str, Any] = {"dice": {}, "bce": {"weight": 0.5}}
    ours, theirs = _state(**losses), _state(Step, **losses)
    assert _run(ours) == _run(theirs)
    assert all(map(torch.equal, ours.model.state_dict().values(), theirs.model.state_dict().values()))


def test_losses_of_the_recipe_keep_their_weight_and_others_have_one(fresh: Path) -> None:
    class Added(Step):
        def forward(self, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
            scores = model(batch.image)
            return {"gap": _first(scores).square().mean(), **objective(scores, batch.target)}

    found = _run(_state(Added, bce={"weight": 3.0}, dice={}))
    assert list(found) == ["loss.bce", "loss.dice", "step.tried.gap", "regularizer.l2", "train_loss"]
    total = 3 * found["loss.bce"] + found["loss.dice"] + found["step.tried.gap"] + 0.01 * found["regularizer.l2"]
    assert found["train_loss"] == pytest.approx(total, rel=1e-5)


def test_only_labelled_members_count_and_none_count_as_nothing(fresh: Path) -> None:
    objective = _state(Step).objective
    seen: list[dict[str, float]] = []

    class Spy(Step):
        def forward(self, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
            found = super().forward(model, batch, objective)
            seen.append({name: float(value.detach()) for name, value in found.items()})
            return {**found, "all": _first(model(batch.image)).mean()}

    image, target, _ = _batches(1, size=3)[0]
    labelled = [torch.tensor(flags) for flags in ([True, False, True], [False] * 3)]
    model = nn.Conv2d(1, 2, 1)
    segkit.steps.register("spy")(Spy)
    step = TrainingStep(segkit.steps.component("spy"))
    for flags in labelled:
        step(model, Batch(image, target, flags), objective)
    kept = [0, 2]
    expected = float(objective(model(image)[kept].detach(), target[kept])["loss.dice"])
    assert [row["loss.dice"] for row in seen] == [pytest.approx(expected), 0.0]


def test_updated_is_called_after_each_step_of_the_optimizer(fresh: Path) -> None:
    calls: list[bool] = []

    class Counts(Step):
        def updated(self, model: nn.Module) -> None:
            calls.append(all(weight.grad is None for weight in model.parameters()))

    _run(_state(Counts), accumulate=3)
    assert calls == [True, True]


# auxiliary scores


def test_levels_are_weighted_within_each_loss_and_the_target_shrinks_by_area() -> None:
    _, target, _ = _batches(1)[0]
    scores = torch.randn(2, 2, 16, 16), torch.randn(2, 2, 8, 8), torch.randn(2, 2, 5, 4)
    small_target = [(functional.adaptive_avg_pool2d(target, size) >= 0.5).float() for size in ((8, 8), (5, 4))]
    objective = _state(bce={}).objective
    bce = functional.binary_cross_entropy_with_logits
    each = [bce(one, truth) for one, truth in zip(scores, (target, *small_target), strict=True)]
    torch.testing.assert_close(objective(scores, target)["loss.bce"], (4 * each[0] + 2 * each[1] + each[2]) / 7)
    objective.levels = Levels(exclusive=False, weights=(0.0, 3.0, 1.0))
    torch.testing.assert_close(objective(scores, target)["loss.bce"], (3 * each[1] + each[2]) / 4)
    with pytest.raises(UserError, match=r"train.auxiliary_weights: states 3 weights, .* scores of 2 resolutions"):
        objective(scores[:2], target)


def test_exclusive_targets_stay_exclusive_at_every_level() -> None:
    labels = torch.randint(0, 3, (2, 9, 9), generator=torch.Generator().manual_seed(0))
    target = functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    (_, whole), (_, shrunk) = Levels(exclusive=True)((torch.zeros(2, 3, 9, 9), torch.zeros(2, 3, 3, 3)), target)
    assert whole is target
    assert torch.equal(shrunk.sum(1), torch.ones(2, 3, 3))
    most = functional.one_hot(labels[:, :3, :3].reshape(2, 9), 3).sum(1).argmax(1)
    assert torch.equal(shrunk[:, :, 0, 0].argmax(1), most)


@pytest.mark.parametrize("text, why", [("[0, 0]", "all of them are 0"), ("[1, -1]", "must be 0 or more")])
def test_useless_weights_of_levels_are_refused(text: str, why: str) -> None:
    with pytest.raises(UserError, match=f"auxiliary_weights.*{why}"):
        small.recipe(f"train.auxiliary_weights={text}")


def test_weights_of_levels_that_are_not_there_are_warned_of(tmp_path: Path) -> None:
    events = small.train(tmp_path, "train.epochs=1", "train.auxiliary_weights=[2, 1]")
    assert any("train.auxiliary_weights: has no effect" in event.text for event in events if event.kind == "warning")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch itself, when it compiles
def test_a_compiled_graph_of_another_training_is_differentiated_twice(
    parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Turned(Step):
        def forward(self, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
            scores, turned = model(batch.image), model(torch.rot90(batch.image, int(torch.randint(4, ())), (2, 3)))
            return {**objective(scores, batch.target), "turned": _first(turned).square().mean()}

    segkit.steps.register("turned")(Turned)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    sets = (*BRIEF, "step=turned", "model={ levelled = {} }", "train.compile=true")
    for seed in (1, 2, 3):
        torch.compiler.reset()
        events = small.train(tmp_path / str(seed), *sets, f"train.seed={seed}")
        assert events[-1].kind == "finished", events[-1].text


# cases without masks


def _set_up(*sets: str) -> Setup:
    return set_up(small.recipe(*BRIEF, "data={ half_labelled = {} }", *sets), Limit(), DataCache())


def test_cases_without_masks_are_trained_on_where_the_step_can(parts: None) -> None:
    supervised, found = _set_up(), _set_up("step=mean_teacher")
    bare = [number for number, case in enumerate(found.data.cases) if not case.labelled]
    assert list(found.split.unlabelled) == bare
    assert supervised.split.unlabelled == ()
    assert (found.split.train, found.split.validation) == (supervised.split.train, supervised.split.validation)
    assert len(found.feed.batches.samples) == len(found.split.train) + 4
    batches = [*found.feed.epoch(1), *found.feed.epoch(2)]
    assert sum(int((~batch.labelled).sum()) for batch in batches) == 8
    for batch in batches:
        assert not batch.target[~batch.labelled].any()
        assert batch.target[batch.labelled].flatten(1).any(1).all()
    assert any("and 4 without masks for training" in line for line in found.log)
    assert any("4 cases without masks: left out" in line for line in supervised.log)


def test_patients_without_masks_count_as_trained_on(parts: None, tmp_path: Path) -> None:
    small.train(tmp_path, "train.epochs=1", "data={ half_labelled = {} }", "step=mean_teacher")
    meta = checkpoint.read_meta(tmp_path / FOLDER / "best.safetensors")
    assert meta["trained_patients"][-2:] == ["p4", "p5"]
    assert not {*meta["trained_patients"]} & {*meta["validation_patients"]}


def test_cases_of_patients_in_other_sets_stay_out(parts: None) -> None:
    data = _set_up().data
    split = segkit.data.splits.split_cases(
        data, validation=("p0",), test=("p1",), train_fraction=1.0, seed=1, unlabelled=True
    )
    assert {data.cases[number].patient for number in split.unlabelled} == {"p4", "p5"}


def test_the_phantom_has_patients_without_masks() -> None:
    sizes = {"patients": 3, "slices": 6, "height": 32, "width": 32}
    whole = segkit.datasets.build("phantom", sizes)
    for volumes in (False, True):
        found = segkit.datasets.build("phantom", {**sizes, "unlabelled": 1, "volumes": volumes})
        assert [case.has_masks for case in found.cases] == [case.patient != "patient03" for case in found.cases]
    assert [case.name for case in whole.cases if case.has_masks] == [case.name for case in whole.cases]
    with pytest.raises(UserError, match="3 of 3 patients without masks"):
        segkit.datasets.build("phantom", {**sizes, "unlabelled": 3})


# wrong steps

Forwarded = Callable[[nn.Module, Forward, Batch, Losses], Any]


def _first(scores: Scores) -> Tensor:
    return scores[0] if isinstance(scores, tuple) else scores


def _alternating(step: nn.Module, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
    found = objective(model(batch.image), batch.target)
    if step.training:  # the first time
        step.training = False
        return found
    return {**found, "extra": found["loss.dice"]}


def _evaluating(step: nn.Module, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
    step.get_submodule("kept").eval()
    return objective(model(batch.image), batch.target)


def _building(step: nn.Module, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
    step.critic = nn.Conv2d(2, 1, 1)
    return objective(model(batch.image), batch.target)


def _growing(step: nn.Module, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
    step.bank = torch.cat([step.get_buffer("bank"), torch.ones(1)])
    return objective(model(batch.image), batch.target)


def _overflowing(step: nn.Module, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
    scores = model(batch.image)
    return {**objective(scores, batch.target), "gap": (0 * _first(scores)).sum() / 0}


def _steep(step: nn.Module, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
    scores = model(batch.image)
    return {**objective(scores, batch.target), "gap": (0 * _first(scores)).sum().sqrt()}


WRONG: dict[str, tuple[Forwarded, str]] = {
    "nothing": (lambda s, m, b, o: None, "must return a dict of losses by name, got None: is a `return` missing"),
    "a tensor": (lambda s, m, b, o: o(m(b.image), b.target)["loss.dice"], "must return a dict .*, got Tensor"),
    "no loss": (lambda s, m, b, o: {}, "it returns no loss"),
    "a map": (lambda s, m, b, o: {"gap": _first(m(b.image))}, r"the loss 'gap': it returns shape \(2, 2, 16, 16\)"),
    "a number": (lambda s, m, b, o: {"gap": 1.0}, "the loss 'gap': it must return a tensor, got float"),
    "a strange name": (lambda s, m, b, o: {"a,b": _first(m(b.image)).mean()}, "it names a loss 'a,b': use letters"),
    "another name": (_alternating, "returns extra, loss.dice, but returned loss.dice on its first batch"),
    "no gradient": (lambda s, m, b, o: {"gap": _first(m(b.image)).detach().mean()}, "its losses have no gradient"),
    "a backward pass": (
        lambda s, m, b, o: (found := o(m(b.image), b.target))["loss.dice"].backward() or found,  # type: ignore[no-untyped-call]
        "second time.* call none on it before",
    ),
    "an error": (lambda s, m, b, o: 1 / 0, r"test_steps.py:\d+\): ZeroDivisionError"),
    "a setting": (
        lambda s, m, b, o: torch.set_default_dtype(torch.float64) or {},  # type: ignore[func-returns-value]
        r"it changes a global setting \(torch.set_default_dtype\)",
    ),
    "a late tensor": (
        lambda s, m, b, o: vars(s).update(kept=b.image) or o(m(b.image), b.target),
        "its attribute 'kept', .* is a tensor: keep it with `self.register_buffer",
    ),
    "a model in eval mode": (_evaluating, "it leaves the model in eval mode: call its `train\\(\\)` again"),
    "a late layer": (_building, "it makes critic.weight, critic.bias during training: make it in `prepare`"),
    "a growing buffer": (_growing, r"its 'bank' had shape \(1,\) and has \(2,\) now: give it its full size"),
    "an infinite loss": (_overflowing, r"step\.tried\.gap is nan although scores are finite"),
    "an infinite gradient": (_steep, "the gradient of its losses is not finite, though their values are"),
}


class Wrong(Step):
    """Has what the wrong steps need."""

    def __init__(self) -> None:
        super().__init__()

    def prepare(self, model: nn.Module) -> None:
        self.kept = model
        self.register_buffer("bank", torch.zeros(1))


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_step_is_said(name: str, fresh: Path) -> None:
    forward, message = WRONG[name]
    with pytest.raises((ComponentError, NonFiniteError), match=message) as error:
        _run(_state(type("Wrong", (Wrong,), {"forward": forward})))
    assert "step.tried (" in str(error.value)


class Meter:
    """Counts, and says nothing of its state."""

    total = 0


class Ramp:
    """Rises whenever it is called."""

    value = 0.0

    def __call__(self) -> float:
        self.value += 0.1
        return self.value


class Drawing(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held


PREPARED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a list of layers": (lambda model: [nn.Linear(1, 1)], "'held', .*, holds what has a state: .* `nn.ModuleList`"),
    "a list of tensors": (lambda model: [torch.zeros(1)], "'held', .*, holds tensors: keep each with"),
    "a generator": (lambda model: torch.Generator(), "is a random generator: draw from torch's global one"),
    "an array": (lambda model: np.zeros(2), "is a ndarray: keep numbers"),
    "a queue": (lambda model: deque([1.0]), "is a deque: keep numbers"),
    "an object": (lambda model: Meter(), "is a Meter: keep numbers, .* or give it `state_dict` and"),
    "a callable": (lambda model: Ramp(), "is a Ramp: keep numbers, .* or give it `state_dict` and"),
    "a call with a state": (lambda model: functools.partial(max, Ramp()), "is a partial: keep numbers"),
    "layers deep inside": (lambda model: {"a": [nn.Linear(1, 1)]}, "'held', .*, holds what has a state"),
    "a generator within": (lambda model: Drawing(np.random.default_rng(1)), "'held.held', .*, is a random generator"),
    "layers within": (lambda model: Drawing([nn.Linear(1, 1)]), "'held.held', .*, holds what has a state"),
    "optimizers within": (
        lambda model: Drawing({"a": torch.optim.SGD(model.parameters())}),
        "'held.held', .*, holds what has a state",
    ),
    "hidden weights within": (
        lambda model: Drawing(torch.optim.SGD(nn.Linear(2, 3).parameters(), lr=0.1)),
        r"its optimizer 'held.held' moves a weight of shape \(3, 2\)",
    ),
    "hidden weights": (
        lambda model: torch.optim.SGD(nn.Linear(2, 3).parameters(), lr=0.1),
        r"its optimizer 'held' moves a weight of shape \(3, 2\) that is neither the model's nor in a module",
    ),
    "a frozen weight": (
        lambda model: model.requires_grad_(False) and None,
        r"it changes what the model has or trains \(0.bias, .* own a copy; see `train.freeze`",
    ),
    "a new layer": (lambda model: model.append(nn.ReLU()).append(nn.Linear(1, 1)) and None, "what the model has .*5.b"),
    "an error": (lambda model: 1 / 0, "ZeroDivisionError"),
}


@pytest.mark.parametrize("name", PREPARED)
def test_what_would_not_be_saved_is_refused_before_training(name: str, fresh: Path) -> None:
    make, message = PREPARED[name]

    class Holds(Step):
        def prepare(self, model: nn.Module) -> None:
            self.held = make(model)

    with pytest.raises(ComponentError, match=message):
        _state(Holds)


def test_errors_after_a_step_and_of_a_state_name_the_plugin(fresh: Path) -> None:
    class Fails(Step):
        def updated(self, model: nn.Module) -> None:
            raise RuntimeError("no more")

    class Unsaved:
        def state_dict(self) -> dict[str, Any]:
            return {"held": object()}

        def load_state_dict(self, state: dict[str, Any]) -> None: ...

    with pytest.raises(ComponentError, match=r"step\.tried \(.*RuntimeError: no more"):
        _run(_state(Fails))
    state = _state()
    step = TrainingStep(segkit.steps.component("tried"))
    step.module.other = Unsaved()  # type: ignore[assignment]
    with pytest.raises(ComponentError, match=r"states\.other\.held: a object cannot be saved without pickle"):
        step.owned.state()
    assert state.training_step.owned.state() == {}


@pytest.mark.parametrize(
    "made, message",
    [
        (lambda: lambda model, batch, objective: {}, "must return a torch.nn.Module, got function"),
        (lambda: nn.Module(), "it has no forward"),
    ],
)
def test_a_step_is_a_module_with_a_forward(made: Callable[[], Any], message: str, fresh: Path) -> None:
    segkit.steps.register("tried")(made)
    with pytest.raises(ComponentError, match=message):
        TrainingStep(segkit.steps.component("tried"))


def test_a_class_without_parameters_needs_a_constructor(fresh: Path) -> None:
    with pytest.raises(UserError, match=r"'\*args' is not allowed: .* Give the class an `__init__\(self\)` of its own"):
        segkit.steps.register("tried")(type("Bare", (nn.Module,), {"forward": Step.forward}))


def test_the_mean_teacher_follows_the_model_and_is_taught_by_cases_without_masks(parts: None) -> None:
    torch.manual_seed(1)
    model = nn.Conv2d(1, 2, 1)
    step = TrainingStep(segkit.steps.component("mean_teacher", {"decay": 0.4, "ramp_up": 1, "noise": 0.0}))
    step.prepare(model, torch.device("cpu"))
    objective = _state().objective
    image, target, _ = _batches(1)[0]
    batch = Batch(image, target, torch.zeros(2, dtype=torch.bool))
    expected = model.weight.detach().clone()
    for number in range(3):
        (dice, distance, _), _ = step(model, batch, objective)
        assert float(dice.detach()) == 0
        assert bool(distance > 0) == (number > 0)
        with torch.no_grad():
            model.weight.add_(1.0)
        step.updated(model)
        decay = min(0.4, 1 - 1 / (number + 1))
        expected = decay * expected + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(step.module.get_parameter("teacher.weight").detach(), expected)
        with torch.no_grad():
            model.weight.add_(0.5)  # so that model and teacher differ
