"""Networks and losses of MONAI: `pip install monai`, then `[model.monai.network.UNet]`, `[loss.monai.loss.DiceLoss]`.

`loss.monai_softmax` is for exclusive channels. Names and parameters are MONAI's; segkit sets activations.
"""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

from segkit import Component, UserError, losses, models
from segkit.components.families import add_classes
from segkit.registry.registry import Registry
from segkit.types import Count, Tensor

if TYPE_CHECKING:
    from torch import nn

NETWORKS = ("AttentionUnet", "BasicUNet", "DynUNet", "SegResNet", "SwinUNETR", "UNet")
LOSSES = (
    "DiceLoss", "DiceCELoss", "DiceFocalLoss", "FocalLoss", "GeneralizedDiceLoss", "GeneralizedDiceFocalLoss",
    "HausdorffDTLoss", "LogHausdorffDTLoss", "MCCLoss", "TverskyLoss",
)  # fmt: skip
SOFTMAX = ("softmax", "use_softmax")
SET_HERE = ("sigmoid", *SOFTMAX, "other_act", "to_onehot_y", "reduction", "ignore_index", "soft_label")


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        text = f"plugins/monai_parts.py needs the package monai ({error}). Install it: pip install monai"
        raise UserError(text) from None


def _network(cls: Any, in_channels: int, out_channels: int, /, **values: Any) -> nn.Module:
    written = {name: value for name, value in values.items() if value is not None}
    network: nn.Module = cls(spatial_dims=2, in_channels=in_channels, out_channels=out_channels, **written)
    network.register_forward_hook(_unstacked)
    return network


def _unstacked(network: nn.Module, inputs: Any, scores: Any) -> Any:
    """Turn the (N, levels, C, H, W) that DynUNet returns in training with deep supervision into a tuple."""
    return scores.unbind(1) if scores.ndim == 5 else scores


def _loss(cls: Any, softmax: bool, /, **values: Any) -> nn.Module:
    known = inspect.signature(cls).parameters
    written = {name: value for name, value in values.items() if value is not None}
    activations = {name: softmax for name in SOFTMAX} | {"sigmoid": not softmax}
    loss: nn.Module = cls(**{name: value for name, value in activations.items() if name in known}, **written)
    return loss


monai_networks = Registry(
    "monai_network",
    "monai_networks",
    home=__name__,
    handed=("in_channels", "out_channels"),
    family=lambda registry: add_classes(
        registry,
        _library("monai.networks.nets"),
        NETWORKS,
        _network,
        hidden=("spatial_dims", "in_channels", "out_channels", "norm_layer"),
    ),
)
monai_losses = Registry(
    "monai_loss",
    "monai_losses",
    home=__name__,
    handed=("softmax",),
    family=lambda registry: add_classes(registry, _library("monai.losses"), LOSSES, _loss, hidden=SET_HERE),
)


@models.register("monai")
def monai(
    in_channels: int,
    out_channels: int,
    *,
    network: Annotated[Component, monai_networks],
    multiple: Count = 32,
    least: Count = 64,
) -> nn.Module:
    """Network of MONAI in 2-D, by its class: AttentionUnet, BasicUNet, DynUNet, SegResNet, SwinUNETR or UNet.

    Takes images of any size: the border is repeated until both sides are multiples of 32, and the scores are cropped.
    SwinUNETR also needs the package einops.

    Args:
        in_channels: of the image (N, in, H, W).
        out_channels: of the scores (N, out, H, W); no activation.
        network: the class and its parameters, e.g. { UNet = { channels = [16, 32, 64], strides = [2, 2] } }. With
            `deep_supervision`, DynUNet's auxiliary scores are used, each at the size of the image.
        multiple: that the sides of the network's image have to be divided by.
        least: the smallest side that it takes; norms need several pixels on the lowest level.

    Raises:
        UserError: MONAI is not installed.

    Source: Cardoso et al. 2022, https://github.com/Project-MONAI/MONAI.
    """
    made: nn.Module = models.padded(network(in_channels, out_channels), multiple, least)
    return made


@losses.register("monai")
class MonaiLoss:
    """Loss of MONAI, by its class, on sigmoid probabilities: DiceLoss, TverskyLoss, GeneralizedDiceLoss and others.

    Args:
        loss: the class and its parameters, e.g. "DiceLoss" or { TverskyLoss = { alpha = 0.3, beta = 0.7 } }.

    Raises:
        UserError: MONAI is not installed.
        ValueError: DiceCELoss with several channels, whose cross-entropy is a softmax: `monai_softmax` has it.

    Source: Cardoso et al. 2022, https://github.com/Project-MONAI/MONAI.
    """

    softmax = False

    def __init__(self, *, loss: Annotated[Component, monai_losses]) -> None:
        self.name, self.compute = loss.name, loss(self.softmax)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, C, H, W) and target (N, C, H, W) in {0, 1}."""
        from torch.nn import functional

        if self.softmax:
            logits = functional.logsigmoid(logits)  # log-probabilities, of which softmax makes the probabilities
        elif self.name == "DiceCELoss" and logits.shape[1] > 1:
            raise ValueError(
                "DiceCELoss has a softmax for several channels: use loss.monai_softmax with exclusive channels, or "
                "DiceLoss together with loss.bce."
            )
        found: Tensor = self.compute.to(logits.device)(logits, target)
        return found


@losses.register("monai_softmax", exclusive_only=True)
class MonaiSoftmaxLoss(MonaiLoss):
    """Loss of MONAI, by its class, on softmax probabilities of exclusive channels: DiceCELoss, FocalLoss and others.

    Parameters and errors as for `monai`.
    """

    softmax = True

    def __init__(self, *, loss: Annotated[Component, monai_losses]) -> None:
        super().__init__(loss=loss)
