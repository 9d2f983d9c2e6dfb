"""TorchIO subjects and given poses go in; subjects whose scans moved that way come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torchio import Subject
from torchio.transforms.intensity_transform import IntensityTransform

from motionlib.motion.image_based import image_motion, kspace_motion
from motionlib.motion.trajectory import Trajectory

POSE_NAMES = ("times", "translation_mm", "rotation_deg")
Poses = list | Mapping[str, list]


class Replay(IntensityTransform):
    """Apply one trajectory, or one per image name, with fixed options."""

    simulate: Callable[..., torch.Tensor]

    def __init__(
        self, times: Poses, translation_mm: Poses, rotation_deg: Poses, *,
        interpolation: str, options: dict[str, Any], base: dict[str, Any],
    ) -> None:  # fmt: skip
        super().__init__(**base)
        self.times, self.translation_mm, self.rotation_deg = times, translation_mm, rotation_deg
        self.interpolation = interpolation
        self.options = options
        for name, value in options.items():
            setattr(self, name, value)
        self.args_names = [*POSE_NAMES, "interpolation", *options]

    def apply_transform(self, subject: Subject) -> Subject:
        """Corrupt every intensity image; label maps stay as they are."""
        for name, image in self.get_images_dict(subject).items():
            poses = [self.get_parameter(getattr(self, key), name) for key in POSE_NAMES]
            trajectory = Trajectory(*poses, interpolation=self.interpolation)
            channels = [
                type(self).simulate(
                    channel.float(), trajectory, affine=image.affine, **self.options
                )
                for channel in image.data
            ]
            image.set_data(torch.stack(channels))
        return subject


class ImageMotion(Replay):
    """Apply one given motion with ``simulate.image_motion``.

    Parameters
    ----------
    times : list of float, or mapping from image name to list
        Fractions of the scan, shape (T,).
    translation_mm, rotation_deg : list, or mapping from image name to list
        Shape (T, 3), RAS axes, mm and degrees.
    interpolation : {"hold", "linear"}
        What happens between poses.
    axis, center, direction, output, keep_center
        As in ``simulate.image_motion``.
    **kwargs
        Arguments of TorchIO's ``Transform``.
    """

    simulate = staticmethod(image_motion)

    def __init__(
        self, times: Poses, translation_mm: Poses, rotation_deg: Poses, *,
        interpolation: str = "hold", axis: int = 1, center: str = "image",
        direction: str = "push", output: str = "magnitude", keep_center: bool = True,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        options = {
            "axis": axis,
            "center": center,
            "direction": direction,
            "output": output,
            "keep_center": keep_center,
        }
        super().__init__(
            times, translation_mm, rotation_deg,
            interpolation=interpolation, options=options, base=kwargs,
        )  # fmt: skip


class KSpaceMotion(Replay):
    """Apply one given motion with ``simulate.kspace_motion``.

    Parameters
    ----------
    times : list of float, or mapping from image name to list
        Fractions of the scan, shape (T,).
    translation_mm, rotation_deg : list, or mapping from image name to list
        Shape (T, 3), RAS axes, mm and degrees.
    interpolation : {"hold", "linear"}
        What happens between poses.
    axis, eps, pad_vox, center, direction, output
        As in ``simulate.kspace_motion``.
    **kwargs
        Arguments of TorchIO's ``Transform``.
    """

    simulate = staticmethod(kspace_motion)

    def __init__(
        self, times: Poses, translation_mm: Poses, rotation_deg: Poses, *,
        interpolation: str = "linear", axis: int = 1, eps: float = 1e-3,
        pad_vox: int | list[int] | str = "auto", center: str = "image",
        direction: str = "push", output: str = "magnitude",
        **kwargs: Any,
    ) -> None:  # fmt: skip
        options = {
            "axis": axis,
            "eps": eps,
            "pad_vox": pad_vox,
            "center": center,
            "direction": direction,
            "output": output,
        }
        super().__init__(
            times, translation_mm, rotation_deg,
            interpolation=interpolation, options=options, base=kwargs,
        )  # fmt: skip
