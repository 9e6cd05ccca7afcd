"""The contestants, by name."""

from __future__ import annotations

from tests.benchmarks.accuracy import tutorials
from tests.benchmarks.accuracy.inside import Inside
from tests.benchmarks.accuracy.plain import Plain
from tests.benchmarks.accuracy.task import ROOT, Contestant

STRONG = "strong"
"""The one that the others are compared with."""

SMP, MONAI = ("segmentation_models_pytorch",), ("monai",)
_DEEP = {
    "filters": tutorials.CHANNELS,
    "strides": [1, 2, 2, 2, 2],
    "deep_supervision": True,
}

CONTESTANTS: dict[str, Contestant] = {
    STRONG: Inside("segkit, `strong`"),
    "baseline": Inside(
        "segkit, `baseline`",
        recipe=ROOT / "recipes/baseline.toml",
        shares={"scheduler.StepLR.step_size": 1 / 3},  # 100 of the recipe's 300 epochs
    ),
    "strong-monai-unet": Inside("MONAI's UNet in `strong`", needs=MONAI),
    "strong-monai-dynunet": Inside("MONAI's DynUNet in `strong`", needs=MONAI),
    **{
        f"strong-smp-{encoder}": Inside(
            f"smp's Unet, {encoder}, in `strong`", {"model.smp.encoder": encoder}, needs=SMP
        )
        for encoder in ("resnet18", "resnet34")
    },
    "plain-monai-unet": Plain("MONAI's UNet, plain loop", tutorials.monai_unet, MONAI),
    "plain-monai-dynunet": Plain("MONAI's DynUNet, plain loop", tutorials.monai_dynunet, MONAI),
    "plain-smp-resnet18": Plain("smp's Unet, resnet18, plain loop", tutorials.smp_resnet18, SMP),
    "plain-smp-resnet34": Plain("smp's Unet, resnet34, plain loop", tutorials.smp_resnet34, SMP),
}
