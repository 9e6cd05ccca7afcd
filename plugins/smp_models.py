"""Models of segmentation-models-pytorch: `pip install segmentation-models-pytorch`, then `[model.smp]`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from segkit import UserError, models

if TYPE_CHECKING:
    from torch import nn

Architecture = Literal[
    "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet",
    "segformer",
]  # fmt: skip


@models.register("smp")
def smp(
    in_channels: int,
    out_channels: int,
    *,
    architecture: Architecture = "unet",
    encoder: str = "resnet34",
    weights: str | None = None,
) -> nn.Module:
    """Model of segmentation-models-pytorch by architecture and encoder; takes images of any size.

    The border is repeated up to a multiple of the encoder's stride (usually 32), to 128 pixels at least so that the
    lowest level has pixels to work on, and cropped away again.

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
        import segmentation_models_pytorch as package
    except ImportError as error:
        raise UserError(
            f"model.smp needs the package segmentation-models-pytorch ({error}). "
            "Install it: pip install segmentation-models-pytorch"
        ) from None
    try:
        inner = package.create_model(
            architecture, encoder_name=encoder, encoder_weights=weights, in_channels=in_channels, classes=out_channels
        )
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        text = " ".join(str(part) for part in error.args)
        raise UserError(f"model.smp: {architecture} with encoder {encoder!r}, weights {weights!r}: {text}") from error
    return _padded(inner, int(getattr(inner.encoder, "output_stride", 32)))


def _padded(inner: nn.Module, stride: int) -> nn.Module:
    """Return a module that feeds `inner` images whose sides are multiples of `stride`."""
    from torch import Tensor, nn
    from torch.nn import functional

    least = math.ceil(128 / stride)

    class Padded(nn.Module):
        """Image (N, in, H, W) of any size to scores (N, out, H, W)."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, image: Tensor) -> Any:
            height, width = image.shape[2:]
            below, right = (max(math.ceil(side / stride), least) * stride - side for side in (height, width))
            if not (below or right):
                return self.inner(image)
            scores = self.inner(functional.pad(image, (0, right, 0, below), mode="replicate"))
            return scores[:, :, :height, :width]

    return Padded()
