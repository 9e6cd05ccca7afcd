"""The losses of the baseline's first 20 steps: a change of them is a decision, not an accident.

Whoever changes them on purpose raises `TRAINING_NUMBER` in `segkit/recipe/identity.py`, so that trials of before are
neither resumed nor compared with those of after, and stores here what `python -m tests.test_golden` prints.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from segkit import losses
from segkit.plugins import isolated
from segkit.recipe.model import Recipe
from segkit.training.run import run_trial
from segkit.types import Tensor
from tests import small

RECIPES = Path(__file__).parents[1] / "recipes"
STEPS = 20
# `recipes/baseline.toml --with recipes/overlays/laptop.toml --set model.unet.widths=[8,16,32,64]`, on the phantom,
# seed 1, CPU, one thread, float32
LAPTOP = (
    *(0.6182254552841187, 0.6206487417221069, 0.6127614974975586, 0.6005599498748779, 0.5928099751472473),
    *(0.5928633213043213, 0.6155558824539185, 0.5964653491973877, 0.5988575816154480, 0.5851277709007263),
    *(0.5899690985679626, 0.5757789611816406, 0.5828608274459839, 0.5580136775970459, 0.5647983551025391),
    *(0.5588037371635437, 0.6046695709228516, 0.5883165001869202, 0.5544793009757996, 0.5535885095596313),
)


def first_losses(folder: Path) -> list[float]:
    """Train the baseline for 20 steps and return the loss of each."""
    mix, found = losses.build("dice_mix", {"lambda": 0.5}), list[float]()

    def recorded(logits: Tensor, target: Tensor) -> Tensor:
        value: Tensor = mix(logits, target)
        if value.requires_grad:  # in training
            found.append(value.item())
        return value

    with isolated():
        losses.register("recorded")(recorded)
        path = folder / "recorded.toml"
        path.write_text(f"extends = '{RECIPES / 'baseline.toml'}'\nloss = 'recorded'\ndrop = ['loss']\n")
        sets = ["model.unet.widths=[8,16,32,64]", "train.device=cpu", "train.threads=1", "train.workers=0"]
        recipe = Recipe.load(path, overlays=[RECIPES / "overlays/laptop.toml"], sets=sets)
        events = list(run_trial(small.trial(folder / "run", recipe), stop=lambda: len(found) == STEPS))
    assert events[-1].kind == "interrupted", events[-1].text
    return found


def test_the_first_steps_of_the_baseline_are_the_same(tmp_path: Path) -> None:
    # Adam amplifies rounding: with other instruction sets (ONEDNN_MAX_CPU_ISA, ATEN_CPU_CAPABILITY) the 20 values move
    # by at most 1e-5 of themselves a step. A learning rate 1 % larger moves the second by 1e-4 and a rotation's
    # probability of 0.52 for 0.5 one of the later by 1e-3; another seed, order or augmentation moves all by more.
    moved = [
        abs(value / golden - 1) / step
        for step, (value, golden) in enumerate(zip(first_losses(tmp_path), LAPTOP, strict=True), 1)
    ]
    assert max(moved) < 3e-5


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        sys.stdout.write("\n".join(f"{value:.16f}" for value in first_losses(Path(name))) + "\n")
