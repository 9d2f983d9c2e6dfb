"""Head motion as TorchIO transforms, drawn at random or given, with a history that replays.

Each simulator has two transforms, as TorchIO has ``RandomMotion`` and ``Motion``: the random one
draws a trajectory for every image of every call and hands it to the other, which is what the
history of the subject keeps::

    moved = RandomImageMotion.paper()(subject)
    moved.get_composed_history()(subject)  # the same bits again
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torchio import Subject
from torchio.transforms.augmentation import RandomTransform
from torchio.transforms.intensity_transform import IntensityTransform

from motionlib.motion.image_based import image_motion
from motionlib.motion.kspace_based import kspace_motion
from motionlib.motion.sampling import sample_segments, sample_time_course
from motionlib.motion.trajectory import POSE_NAMES, Trajectory

Poses = list | Mapping[str, list]
Range = tuple[float, float]
PLACE = {"center": "image", "direction": "push", "output": "magnitude"}
IMAGE_OPTIONS = {"axis": 1, **PLACE, "keep_center": True}  # of `image_motion`
KSPACE_OPTIONS = {"axis": 1, "eps": 1e-3, "pad_vox": "auto", **PLACE}  # of `kspace_motion`


class _Replay(IntensityTransform):
    """Apply one trajectory, or one per image name, with fixed options."""

    simulate: Callable[..., torch.Tensor]
    between_poses: str  # the default of `interpolation`
    defaults: ClassVar[dict[str, Any]]

    def __init__(
        self, times: Poses, translation_mm: Poses, rotation_deg: Poses, *,
        interpolation: str | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        self.options = {name: kwargs.pop(name, value) for name, value in self.defaults.items()}
        super().__init__(**kwargs)
        self.times, self.translation_mm, self.rotation_deg = times, translation_mm, rotation_deg
        self.interpolation = interpolation or self.between_poses
        for name, value in self.options.items():  # TorchIO's history reads attributes
            setattr(self, name, value)
        self.args_names = [*POSE_NAMES, "interpolation", *self.options]

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

    replay: type[_Replay]
    sample: Callable[..., Trajectory]  # from a seed; ValueError if the ranges are none

    def __init__(self, kwargs: dict[str, Any]) -> None:
        names = self.replay.defaults
        self.options = {name: kwargs.pop(name) for name in names if name in kwargs}
        super().__init__(**kwargs)

    def draw(self) -> Trajectory:
        """Draw one trajectory with torch's global generator."""
        return self.sample(self._get_random_seed())

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


class ImageMotion(_Replay):
    """Apply one given motion with `image_motion`.

    Parameters
    ----------
    times : list of float, or mapping from image name to list
        Fractions of the scan, shape (T,).
    translation_mm, rotation_deg : list, or mapping from image name to list
        Shape (T, 3), RAS axes, mm and degrees.
    interpolation : {"hold", "linear"}, default="hold"
        What happens between poses.
    **kwargs
        ``axis`` (default 1), ``center``, ``direction``, ``output`` and ``keep_center`` as in
        `image_motion`; arguments of TorchIO's ``Transform``.
    """

    simulate = staticmethod(image_motion)
    between_poses = "hold"
    defaults = IMAGE_OPTIONS


class RandomImageMotion(_Draw):
    """Rest in random positions during the scan (`image_motion`).

    Parameters
    ----------
    range_mm, range_deg, num_positions, signed, jitter
        As `translation_mm`, `rotation_deg`, `n_positions` (4), `signed` (True) and `jitter` (0.3)
        of `sample_segments`.
    torchio_order : bool, default=False
        Draw exactly the numbers TorchIO 1.2.1 draws from the same seed, in its LPS world.
    **kwargs
        As in `ImageMotion`.

    Notes
    -----
    Source: paper §III-C.1; TorchIO 1.2.1 ``RandomMotion``.
    """

    replay = ImageMotion

    def __init__(
        self, range_mm: Range = (2, 4), range_deg: Range = (2, 4), num_positions: int = 4, *,
        signed: bool = True, jitter: float = 0.3, torchio_order: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(kwargs)
        self.range_mm, self.range_deg = tuple(range_mm), tuple(range_deg)
        self.num_positions, self.signed, self.jitter = num_positions, signed, jitter
        self.torchio_order = torchio_order
        if torchio_order and signed:
            raise ValueError("TorchIO draws no signs; torchio_order=True needs signed=False.")
        self.sample(0)  # says at once what is wrong with the ranges

    @classmethod
    def paper(
        cls, range_mm: Range = (2, 4), range_deg: Range = (2, 4), **kwargs: Any
    ) -> RandomImageMotion:
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
            return super().draw()
        n, step = self.num_positions, 1 / (self.num_positions + 1)
        degrees = torch.empty(n, 3).uniform_(*self.range_deg).numpy()
        translation = torch.empty(n, 3).uniform_(*self.range_mm).numpy()
        times = torch.arange(0, 1, step)[1 : n + 1]  # rounding makes TorchIO's one too long at 48
        times = times + torch.empty(n).uniform_(-step * self.jitter, step * self.jitter)
        return Trajectory.from_torchio(times.numpy(), translation, degrees)

    def sample(self, seed: int) -> Trajectory:
        """Draw resting positions from a seed."""
        return sample_segments(
            self.num_positions, translation_mm=self.range_mm, rotation_deg=self.range_deg,
            signed=self.signed, jitter=self.jitter, rng=seed,
        )  # fmt: skip


class KSpaceMotion(_Replay):
    """Apply one given motion with `kspace_motion`.

    Parameters
    ----------
    times, translation_mm, rotation_deg, interpolation
        As for `ImageMotion`, but the pose glides (``linear``) by default.
    **kwargs
        ``axis`` (default 1), ``eps``, ``pad_vox``, ``center``, ``direction`` and ``output`` as in
        `kspace_motion`; arguments of TorchIO's ``Transform``.
    """

    simulate = staticmethod(kspace_motion)
    between_poses = "linear"
    defaults = KSPACE_OPTIONS


class RandomKSpaceMotion(_Draw):
    """Move continuously during the scan (`kspace_motion`).

    Parameters
    ----------
    range_mm, range_deg, n_times : (float, float), (float, float), int
        The severity, mm and degrees, and points of the course.
    **kwargs
        As in `KSpaceMotion`.

    Notes
    -----
    Source: paper §III-C.1; the fork's ``RandomMotionFromTimeCourse``.
    """

    replay = KSpaceMotion

    def __init__(
        self, range_mm: Range = (2, 4), range_deg: Range = (2, 4), n_times: int = 200, **kwargs: Any
    ) -> None:
        super().__init__(kwargs)
        self.range_mm, self.range_deg, self.n_times = tuple(range_mm), tuple(range_deg), n_times
        self.sample(0)  # says at once what is wrong with the ranges

    @classmethod
    def paper(
        cls, range_mm: Range = (2, 4), range_deg: Range = (2, 4), **kwargs: Any
    ) -> RandomKSpaceMotion:
        """Return the paper's second simulator: 200 points, drift, swallows, steps, magnitude.

        Notes
        -----
        Source: paper §III-C.1; ranges as the largest pairwise distance, the first author's code.
        """
        return cls(range_mm, range_deg, 200, axis=1, **kwargs)

    def sample(self, seed: int) -> Trajectory:
        """Draw a time course from a seed."""
        return sample_time_course(
            self.n_times, translation_mm=self.range_mm, rotation_deg=self.range_deg, rng=seed
        )
