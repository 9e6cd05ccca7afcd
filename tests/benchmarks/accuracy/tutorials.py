"""What the tutorials of MONAI and segmentation_models_pytorch train, for 2-D images with one structure.

Networks, augmentation, losses, optimizers and batch sizes are the tutorials'. What had to be decided here:

- A crop takes the share of the image's side that the tutorial's does, rounded down to a multiple of 32.
- Images are in memory, and random numbers come from a seed.
- The encoder of smp's Unet is resnet18, with which two cores take more steps than with the resnet34 of most examples.
- DynUNet has 16 to 256 channels, as MONAI's UNet, and not 32 to 512, with which two cores take a quarter of the steps.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segkit.types import Array
from tests.benchmarks.accuracy.plain import SEED, Pair, Setting

CHANNELS = (16, 32, 64, 128, 256)
KEYS = ["image", "label"]


def crop_side(pairs: Sequence[Pair], share: float) -> int:
    """Return the side of a crop that takes a share of the side of the smallest image."""
    return max(32, int(share * min(min(image.shape) for image, _ in pairs)) // 32 * 32)


class _Crops:
    """MONAI's loader of several crops an image, as pairs."""

    def __init__(self, pairs: Sequence[Pair], transforms: list[Any], batch_size: int, drop_last: bool = False) -> None:
        import monai.data
        from monai.transforms import Compose

        arrays = [
            {"image": torch.from_numpy(image.astype(np.float32))[None], "label": torch.from_numpy(mask)[None].float()}
            for image, mask in pairs
        ]
        augmentation = Compose(transforms)
        augmentation.set_random_state(SEED)
        self._loader = monai.data.DataLoader(
            monai.data.Dataset(arrays, augmentation),
            batch_size=batch_size,
            shuffle=True,
            drop_last=drop_last,
            collate_fn=monai.data.list_data_collate,
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((batch["image"].as_tensor(), batch["label"].as_tensor()) for batch in self._loader)


def monai_unet(pairs: Sequence[Pair]) -> Setting:
    """Crops around structure and background, quarter turns; Dice, Adam: MONAI's tutorial of 2-D segmentation.

    Source: https://github.com/Project-MONAI/tutorials/blob/main/2d_segmentation/torch/unet_training_dict.py. Its crops
    are of 96 pixels in images of 128.
    """
    from monai.losses import DiceLoss
    from monai.networks.nets import UNet
    from monai.transforms import RandCropByPosNegLabeld, RandRotate90d, ScaleIntensity, ScaleIntensityd

    side = crop_side(pairs, 0.75)
    network = UNet(spatial_dims=2, in_channels=1, out_channels=1, channels=CHANNELS, strides=(2,) * 4, num_res_units=2)
    transforms = [
        ScaleIntensityd(KEYS),
        RandCropByPosNegLabeld(KEYS, label_key="label", spatial_size=[side, side], pos=1, neg=1, num_samples=4),
        RandRotate90d(KEYS, prob=0.5, spatial_axes=(0, 1)),
    ]
    return Setting(
        network=network,
        batches=_Crops(pairs, transforms, batch_size=2),
        loss=DiceLoss(sigmoid=True),
        optimizer=torch.optim.Adam(network.parameters(), lr=1e-3),
        prepared=_by_monai(ScaleIntensity()),
    )


def monai_dynunet(pairs: Sequence[Pair]) -> Setting:
    """Crops, zoom, noise, blur, brightness, mirroring; Dice and cross-entropy at four levels, SGD: MONAI's DynUNet.

    Source: https://github.com/Project-MONAI/tutorials/tree/main/modules/dynunet_pipeline (create_network.py,
    transforms.py, trainer.py, train.py with its defaults, -lr_decay and -tta_val), in 2-D. Its patches take 60 % to all
    of the images' sides; here it is three quarters.
    """
    from monai.losses import DiceCELoss
    from monai.networks.nets import DynUNet
    from monai.transforms import (
        CropForegroundd,
        NormalizeIntensity,
        NormalizeIntensityd,
        RandCropByPosNegLabeld,
        RandFlipd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
        RandZoomd,
        SpatialPadd,
    )

    side = crop_side(pairs, 0.75)
    size, down = [side, side], [2] * (len(CHANNELS) - 1)
    network = DynUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=2,
        kernel_size=[3] * len(CHANNELS),
        strides=[1, *down],
        upsample_kernel_size=down,
        filters=CHANNELS,
        norm_name="instance",
        deep_supervision=True,
        deep_supr_num=3,
    )
    transforms = [
        CropForegroundd(KEYS, source_key="image", allow_smaller=True),
        NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        SpatialPadd(KEYS, spatial_size=size),
        RandCropByPosNegLabeld(
            KEYS,
            label_key="label",
            spatial_size=size,
            pos=1,
            neg=1,
            num_samples=3,
            image_key="image",
            image_threshold=0,
        ),
        RandZoomd(
            KEYS, min_zoom=0.9, max_zoom=1.2, mode=("bilinear", "nearest"), align_corners=(True, None), prob=0.15
        ),
        RandGaussianNoised("image", std=0.01, prob=0.15),
        RandGaussianSmoothd("image", sigma_x=(0.5, 1.15), sigma_y=(0.5, 1.15), prob=0.15),
        RandScaleIntensityd("image", factors=0.3, prob=0.15),
        RandFlipd(KEYS, spatial_axis=[0], prob=0.5),
        RandFlipd(KEYS, spatial_axis=[1], prob=0.5),
    ]
    one_level = DiceCELoss(to_onehot_y=True, softmax=True)

    def loss(scores: Tensor, target: Tensor) -> Tensor:
        levels = torch.unbind(scores, dim=1)
        return torch.stack([0.5**level * one_level(found, target) for level, found in enumerate(levels)]).sum()

    return Setting(
        network=network,
        batches=_Crops(pairs, transforms, batch_size=2, drop_last=True),
        loss=loss,
        optimizer=torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.99, weight_decay=3e-5, nesterov=True),
        prepared=_by_monai(NormalizeIntensity(nonzero=True, channel_wise=True)),
        rate=lambda done: (1 - done) ** 0.9,
        clip_norm=12,
        flips=True,
    )


def _by_monai(transform: Any) -> Any:
    """Return a transform of images (1, H, W) as one of arrays (H, W)."""
    return lambda image: torch.as_tensor(transform(torch.from_numpy(image.astype(np.float32))[None]))


def smp_resnet18(pairs: Sequence[Pair]) -> Setting:
    """Mirroring, scale, noise, perspective, contrast, blur; Dice, Adam with a cosine: the examples of smp.

    Source: https://github.com/qubvel-org/segmentation_models.pytorch/tree/main/examples. The augmentation is that of
    camvid_segmentation_multiclass.ipynb, whose crops are of 320 pixels in images of 360, without HueSaturationValue,
    which needs colour; the rest is that of binary_segmentation_intro_cpu.py, without the encoder's pretrained weights.
    """
    import segmentation_models_pytorch as smp

    network = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=1)
    images = np.concatenate([image.ravel() for image, _ in pairs])
    mean, std = float(images.mean()), float(images.std())

    def prepared(image: Array) -> Tensor:
        return torch.from_numpy((image.astype(np.float32) - mean) / std)[None]

    least = 1e-5 / 2e-4
    return Setting(
        network=network,
        batches=DataLoader(_Augmented(pairs, prepared), batch_size=8, shuffle=True),
        loss=smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True),
        optimizer=torch.optim.Adam(network.parameters(), lr=2e-4),
        prepared=prepared,
        rate=lambda done: least + (1 - least) * (1 + math.cos(math.pi * done)) / 2,
    )


class _Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Images after the augmentation of smp's example."""

    def __init__(self, pairs: Sequence[Pair], prepared: Any) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations as a

        side = crop_side(pairs, 320 / 360)
        contrast = [a.CLAHE(p=1), a.RandomBrightnessContrast(p=1), a.RandomGamma(p=1)]
        sharpness = [a.Sharpen(p=1), a.Blur(blur_limit=3, p=1), a.MotionBlur(blur_limit=3, p=1)]
        transforms = [
            a.HorizontalFlip(p=0.5),
            a.Affine(scale=(0.5, 1.5), keep_ratio=True, translate_percent=(-0.1, 0.1), p=1),
            a.PadIfNeeded(min_height=side, min_width=side),
            a.RandomCrop(height=side, width=side),
            a.GaussNoise(p=0.2),
            a.Perspective(p=0.5),
            a.OneOf(contrast, p=0.9),
            a.OneOf(sharpness, p=0.9),
            a.RandomBrightnessContrast(p=0.9),
        ]
        self.pairs, self.prepared, self.transform = pairs, prepared, a.Compose(transforms, seed=SEED)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.pairs[index]
        done = self.transform(image=image, mask=mask)
        return self.prepared(done["image"]), torch.from_numpy(done["mask"])[None].float()
