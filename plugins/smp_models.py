"""Models and losses of segmentation-models-pytorch: `pip install segmentation-models-pytorch`, then `[model.smp]`.

`[loss.smp.loss.TverskyLoss]` is a loss by its class, and `loss.smp_softmax` has those for exclusive channels. Names and
parameters are the package's; segkit sets modes.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from segkit import Component, UserError, losses, models
from segkit.components.families import add_classes
from segkit.registry.registry import Registry
from segkit.types import Pretrained, Tensor

if TYPE_CHECKING:
    from torch import nn

Architecture = Literal[
    "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet",
    "segformer",
]  # fmt: skip
EITHER = ("DiceLoss", "JaccardLoss", "TverskyLoss", "LovaszLoss")
SIGMOID = (*EITHER, "FocalLoss", "MCCLoss", "SoftBCEWithLogitsLoss")
SOFTMAX = (*EITHER, "SoftCrossEntropyLoss")
LEAST = {"pan": 128}
"""The smallest side in pixels that an architecture takes; 64 otherwise, for two by two on the lowest level."""
SET_HERE = ("mode", "from_logits", "reduction", "ignore_index", "dim")


def _package() -> ModuleType:
    try:
        return importlib.import_module("segmentation_models_pytorch")
    except RuntimeError as error:
        raise UserError(
            f"plugins/smp_models.py: segmentation-models-pytorch is installed, but cannot be imported ({error}). "
            "Install versions of torch and torchvision that belong together."
        ) from None
    except ImportError as error:
        raise UserError(
            f"plugins/smp_models.py needs the package segmentation-models-pytorch ({error}). "
            "Install it: pip install segmentation-models-pytorch"
        ) from None


@models.register("smp")
def smp(
    in_channels: int,
    out_channels: int,
    *,
    architecture: Architecture = "unet",
    encoder: str = "resnet34",
    weights: Pretrained = None,
) -> nn.Module:
    """Model of segmentation-models-pytorch by architecture and encoder; takes images of any size.

    The border is repeated until both sides are multiples of the encoder's stride (usually 32) and 64 pixels at least
    (128 for "pan"), so that the lowest level has pixels to work on, and the scores are cropped. Choose crops that need
    no border: the network never learns what belongs there, and whole images need none.

    Args:
        in_channels: of the image (N, in, H, W).
        out_channels: of the scores (N, out, H, W); no activation.
        architecture: the decoder.
        encoder: as the package names it, e.g. "resnet34", "efficientnet-b0", "tu-convnext_tiny".
        weights: the encoder's pretrained weights, e.g. "imagenet", which the package downloads; none by default.

    Raises:
        UserError: the package is not installed, or has no such encoder, weights or combination.

    Source: Iakubovskii 2019, https://github.com/qubvel-org/segmentation_models.pytorch.
    """
    try:
        inner = _package().create_model(
            architecture, encoder_name=encoder, encoder_weights=weights, in_channels=in_channels, classes=out_channels
        )
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        text = " ".join(str(part) for part in error.args)
        raise UserError(f"model.smp: {architecture} with encoder {encoder!r}, weights {weights!r}: {text}") from error
    stride = int(getattr(inner.encoder, "output_stride", 32))
    made: nn.Module = models.padded(inner, stride, least=LEAST.get(architecture, 64))
    return made


def _loss(cls: Any, mode: str, /, **values: Any) -> nn.Module:
    written = {name: value for name, value in values.items() if value is not None}
    if "mode" in inspect.signature(cls).parameters:
        written["mode"] = mode
    if cls.__name__ == "SoftCrossEntropyLoss":
        written.setdefault("smooth_factor", 0.0)  # its own default is None, with which it fails
    loss: nn.Module = cls(**written)
    return loss


def _losses(slot: str, plural: str, names: Sequence[str]) -> Registry:
    def family(registry: Registry) -> None:
        add_classes(registry, _package().losses, names, _loss, hidden=SET_HERE)

    return Registry(slot, plural, home=__name__, handed=("mode",), family=family)


smp_losses = _losses("smp_loss", "smp_losses", SIGMOID)
smp_softmax_losses = _losses("smp_softmax_loss", "smp_softmax_losses", SOFTMAX)


@losses.register("smp")
class SmpLoss:
    """Loss of segmentation-models-pytorch, by its class, on sigmoid probabilities: DiceLoss, FocalLoss and others.

    Args:
        loss: the class and its parameters, e.g. "DiceLoss" or { TverskyLoss = { alpha = 0.3, beta = 0.7 } }; all of
            DiceLoss, FocalLoss, JaccardLoss, LovaszLoss, MCCLoss, SoftBCEWithLogitsLoss and TverskyLoss.

    Raises:
        UserError: the package is not installed.

    Source: Iakubovskii 2019, https://github.com/qubvel-org/segmentation_models.pytorch.
    """

    def __init__(self, *, loss: Annotated[Component, smp_losses]) -> None:
        self.name, self.compute = loss.name, loss("multilabel")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, C, H, W) and target (N, C, H, W) in {0, 1}."""
        given = logits.sigmoid() if self.name == "MCCLoss" else logits
        found: Tensor = self.compute.to(logits.device)(given.float(), target.float())  # some mix in their own float32
        return found


@losses.register("smp_softmax", exclusive_only=True)
class SmpSoftmaxLoss:
    """Loss of segmentation-models-pytorch, by its class, on softmax probabilities of exclusive channels.

    Args:
        loss: the class and its parameters: DiceLoss, JaccardLoss, LovaszLoss, SoftCrossEntropyLoss or TverskyLoss.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, *, loss: Annotated[Component, smp_softmax_losses]) -> None:
        self.compute = loss("multiclass")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of log-odds (N, C, H, W) and one-hot classes (N, C, H, W)."""
        from torch.nn import functional

        scores = functional.logsigmoid(logits).float()  # log-probabilities, of which softmax makes the probabilities
        found: Tensor = self.compute.to(logits.device)(scores, target.argmax(1))
        return found
