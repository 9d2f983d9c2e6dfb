"""TorchIO subjects go in; subjects whose scans moved, with a history that replays, come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torchio import Subject
from torchio.transforms.augmentation import RandomTransform
from torchio.transforms.intensity_transform import IntensityTransform

from motionlib.motion.image_based import image_motion
from motionlib.motion.kspace_based import kspace_motion
from motionlib.motion.sampling import sample_realistic, sample_segments, sample_time_course
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


class _Draw(RandomTransform, IntensityTransform):
    """Draw one trajectory per call and image, then replay it."""

    replay: type[Replay]

    def __init__(self, options: dict[str, Any], base: dict[str, Any]) -> None:
        super().__init__(**base)
        self.options = options

    def draw(self) -> Trajectory:
        """Draw one trajectory with torch's global generator."""
        raise NotImplementedError

    def apply_transform(self, subject: Subject) -> Subject:
        """Draw for every intensity image and corrupt it."""
        drawn = {name: self.draw() for name in self.get_images_dict(subject)}
        if not drawn:
            return subject
        poses = {
            key: {name: getattr(course, key).tolist() for name, course in drawn.items()}
            for key in POSE_NAMES
        }
        rule = next(iter(drawn.values())).interpolation
        transform = self.replay(
            **poses, interpolation=rule, **self.options, **self._get_base_args()
        )
        return transform(subject)


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


class RandomImageMotion(_Draw):
    """Rest in random positions during the scan (``simulate.image_motion``).

    Parameters
    ----------
    range_mm, range_deg : (float, float)
        Bounds of each component's magnitude, mm and degrees.
    num_positions : int, default=4
        Positions after the initial one.
    signed : bool, default=True
        Draw signs too.
    jitter : float, default=0.3
        Irregularity of the changes, as a fraction of their distance.
    torchio_order : bool, default=False
        Draw exactly the numbers TorchIO 1.2.1 draws from the same seed, in its LPS world.
    axis, center, direction, output, keep_center
        As in ``simulate.image_motion``.
    **kwargs
        Arguments of TorchIO's ``Transform``.

    Notes
    -----
    Source: paper §III-C.1; TorchIO 1.2.1 ``RandomMotion``.
    """

    replay = ImageMotion

    def __init__(
        self, range_mm: tuple[float, float] = (2, 4), range_deg: tuple[float, float] = (2, 4),
        num_positions: int = 4, *, signed: bool = True, jitter: float = 0.3,
        torchio_order: bool = False, axis: int = 1, center: str = "image",
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
        super().__init__(options, kwargs)
        self.range_mm, self.range_deg = tuple(range_mm), tuple(range_deg)
        self.num_positions, self.signed, self.jitter = num_positions, signed, jitter
        self.torchio_order = torchio_order
        if torchio_order and signed:
            raise ValueError("TorchIO draws no signs; torchio_order=True needs signed=False.")
        sample_segments(  # says at once what is wrong with the ranges
            num_positions, translation_mm=range_mm, rotation_deg=range_deg, jitter=jitter, rng=0
        )

    @classmethod
    def paper(
        cls, range_mm: tuple[float, float] = (2, 4), range_deg: tuple[float, float] = (2, 4),
        **kwargs: Any,
    ) -> RandomImageMotion:  # fmt: skip
        """Return the paper's first simulator: TorchIO 1.2.1, four positions, real part.

        Notes
        -----
        Source: paper §III-C.1; world origin, pull, last axis, positive ranges are TorchIO's.
        """
        return cls(
            range_mm, range_deg, 4, signed=False, torchio_order=True, axis=2, center="world",
            direction="pull", output="real", **kwargs,
        )  # fmt: skip

    def draw(self) -> Trajectory:
        """Draw one trajectory with torch's global generator."""
        if not self.torchio_order:
            return sample_segments(
                self.num_positions,
                translation_mm=self.range_mm,
                rotation_deg=self.range_deg,
                signed=self.signed,
                jitter=self.jitter,
                rng=self._get_random_seed(),
            )
        n, step = self.num_positions, 1 / (self.num_positions + 1)
        degrees = torch.empty(n, 3).uniform_(*self.range_deg).numpy()
        translation = torch.empty(n, 3).uniform_(*self.range_mm).numpy()
        times = torch.arange(0, 1, step)[1 : n + 1]  # rounding makes TorchIO's one too long at 48
        times = times + torch.empty(n).uniform_(-step * self.jitter, step * self.jitter)
        return Trajectory.from_torchio(times.numpy(), translation, degrees)


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


class RandomKSpaceMotion(_Draw):
    """Move continuously during the scan (``simulate.kspace_motion``).

    Parameters
    ----------
    range_mm, range_deg : (float, float)
        The severity, mm and degrees.
    n_times : int, default=200
        Points of the course.
    course : {"paper", "realistic"}
        ``sample_time_course`` or ``sample_realistic``.
    course_options : dict, optional
        Further arguments of that function.
    axis, eps, pad_vox, center, direction, output
        As in ``simulate.kspace_motion``.
    **kwargs
        Arguments of TorchIO's ``Transform``.

    Notes
    -----
    Source: paper §III-C.1; the fork's ``RandomMotionFromTimeCourse``.
    """

    replay = KSpaceMotion

    def __init__(
        self, range_mm: tuple[float, float] = (2, 4), range_deg: tuple[float, float] = (2, 4),
        n_times: int = 200, *, course: str = "paper", course_options: dict[str, Any] | None = None,
        axis: int = 1, eps: float = 1e-3, pad_vox: int | list[int] | str = "auto",
        center: str = "image", direction: str = "push", output: str = "magnitude",
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
        super().__init__(options, kwargs)
        if course not in ("paper", "realistic"):
            raise ValueError(f"course is {course!r}; use 'paper' or 'realistic'.")
        self.range_mm, self.range_deg, self.n_times = tuple(range_mm), tuple(range_deg), n_times
        self.course, self.course_options = course, dict(course_options or {})
        self._sample(np.random.default_rng(0))  # says at once what is wrong with the ranges

    @classmethod
    def paper(
        cls, range_mm: tuple[float, float] = (2, 4), range_deg: tuple[float, float] = (2, 4),
        **kwargs: Any,
    ) -> RandomKSpaceMotion:  # fmt: skip
        """Return the paper's second simulator: 200 points, drift, swallows, steps, magnitude.

        Notes
        -----
        Source: paper §III-C.1; ranges as the largest pairwise distance, the first author's code.
        """
        return cls(range_mm, range_deg, 200, axis=1, **kwargs)

    @classmethod
    def realistic(
        cls, range_mm: tuple[float, float] = (0.2, 3), range_deg: tuple[float, float] = (0.2, 3),
        **kwargs: Any,
    ) -> RandomKSpaceMotion:  # fmt: skip
        """Return motion as patients make it, from sub-millimetre up."""
        return cls(range_mm, range_deg, course="realistic", **kwargs)

    def draw(self) -> Trajectory:
        """Draw one trajectory with torch's global generator."""
        return self._sample(np.random.default_rng(self._get_random_seed()))

    def _sample(self, rng: np.random.Generator) -> Trajectory:
        """One course from a numpy generator."""
        common = {"translation_mm": self.range_mm, "rotation_deg": self.range_deg, "rng": rng}
        if self.course == "realistic":
            return sample_realistic(n_times=self.n_times, **common, **self.course_options)
        return sample_time_course(self.n_times, **common, **self.course_options)
