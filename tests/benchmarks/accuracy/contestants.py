"""The contestants, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.benchmarks.accuracy import tutorials
from tests.benchmarks.accuracy.inside import Inside
from tests.benchmarks.accuracy.plain import Plain
from tests.benchmarks.accuracy.task import ROOT, Contestant

STRONG = "strong"
"""The one that the others are compared with."""

SMP, MONAI = ("segmentation_models_pytorch",), ("monai",)
UNET = {"channels": tutorials.CHANNELS, "strides": [2] * 4, "num_res_units": 2}
DYNUNET = {
    "filters": tutorials.CHANNELS,
    "kernel_size": [3] * 5,
    "strides": [1, 2, 2, 2, 2],
    "upsample_kernel_size": [2] * 4,
    "norm_name": "instance",
    "deep_supervision": True,
    "deep_supr_num": 3,
}


def _monai(network: str, values: Mapping[str, Any]) -> Inside:
    settings = {f"model.monai.network.{network}.{name}": value for name, value in values.items()}
    return Inside(f"MONAI's {network} in `strong`", settings, needs=MONAI)


def _smp(encoder: str) -> Inside:
    return Inside(f"smp's Unet, {encoder}, in `strong`", {"model.smp.encoder": encoder}, needs=SMP)


CONTESTANTS: dict[str, Contestant] = {
    STRONG: Inside("segkit, `strong`"),
    "baseline": Inside(
        "segkit, `baseline`",
        recipe=ROOT / "recipes/baseline.toml",
        shares={"scheduler.StepLR.step_size": 1 / 3},  # 100 of the recipe's 300 epochs
    ),
    "strong-monai-unet": _monai("UNet", UNET),
    "strong-monai-dynunet": _monai("DynUNet", DYNUNET),
    "strong-smp-resnet18": _smp("resnet18"),
    "plain-monai-unet": Plain("MONAI's UNet, plain loop", tutorials.monai_unet, MONAI),
    "plain-monai-dynunet": Plain("MONAI's DynUNet, plain loop", tutorials.monai_dynunet, MONAI),
    "plain-smp-resnet18": Plain("smp's Unet, resnet18, plain loop", tutorials.smp_resnet18, SMP),
}
