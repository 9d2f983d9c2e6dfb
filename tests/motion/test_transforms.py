"""TorchIO transforms: replay, presets, several images, labels and channels."""

import warnings

import numpy as np
import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torchio as tio

from motionlib.motion.image_based import image_motion
from motionlib.motion.trajectory import Trajectory
from motionlib.motion.transforms import (
    ImageMotion,
    KSpaceMotion,
    RandomImageMotion,
    RandomKSpaceMotion,
)

AFFINE = np.array([[2.0, 0, 0, -20], [0, 2, 0, -31], [0, 0, 2, 5], [0, 0, 0, 1]])
RANDOM = [RandomImageMotion, RandomKSpaceMotion, RandomImageMotion.paper, RandomKSpaceMotion.paper]


@pytest.fixture
def subject(phantom):
    """Two contrasts and a label map of one head."""
    return tio.Subject(
        t1=tio.ScalarImage(tensor=phantom.clone(), affine=AFFINE),
        t2=tio.ScalarImage(tensor=phantom.max() - phantom, affine=AFFINE),
        mask=tio.LabelMap(tensor=(phantom > 0.5).float(), affine=AFFINE),
        age=61,
    )


class TestReplay:
    @pytest.mark.parametrize("make", RANDOM)
    def test_history_gives_the_same_bits(self, make, subject):
        torch.manual_seed(3)
        moved = make()(subject)
        again = moved.get_composed_history()(subject)
        for name in ("t1", "t2"):
            assert torch.equal(moved[name].data, again[name].data)
            assert not torch.equal(moved[name].data, subject[name].data)

    @pytest.mark.parametrize("make", RANDOM)
    def test_labels_and_original_stay(self, make, subject):
        before = {name: subject[name].data.clone() for name in ("t1", "t2", "mask")}
        moved = make()(subject)
        assert torch.equal(moved["mask"].data, before["mask"])
        assert moved["age"] == 61
        for name, data in before.items():
            assert torch.equal(subject[name].data, data)

    @pytest.mark.parametrize("make", RANDOM)
    def test_every_call_and_image_moves_differently(self, make, subject):
        torch.manual_seed(3)
        transform = make()
        one, two = transform(subject), transform(subject)
        assert not torch.equal(one["t1"].data, two["t1"].data)
        history = one.history[0]
        assert history.translation_mm["t1"] != history.translation_mm["t2"]

    def test_parameters_are_plain_and_not_changed(self, subject):
        moved = RandomImageMotion()(subject)
        (history,) = moved.history
        assert isinstance(history, ImageMotion)
        assert isinstance(history.times["t1"], list)
        assert isinstance(history.times["t1"][0], float)
        text = repr(history)
        history(subject)
        assert repr(history) == text

    def test_seed_decides(self, subject):
        results = []
        for _ in range(2):
            torch.manual_seed(11)
            results.append(RandomKSpaceMotion()(subject)["t1"].data)
        assert torch.equal(*results)

    def test_include_and_probability_are_honoured(self, subject):
        only = RandomImageMotion(include=["t2"])(subject)
        assert torch.equal(only["t1"].data, subject["t1"].data)
        assert not torch.equal(only["t2"].data, subject["t2"].data)
        assert torch.equal(RandomImageMotion(p=0)(subject)["t1"].data, subject["t1"].data)

    def test_composes_with_other_transforms(self, subject):
        pipeline = tio.Compose([RandomImageMotion(), tio.ZNormalization()])
        assert abs(float(pipeline(subject)["t1"].data.mean())) < 1e-4

    def test_tensor_and_label_only_subjects_pass(self, phantom):
        assert RandomImageMotion()(phantom).shape == phantom.shape
        labels = tio.Subject(mask=tio.LabelMap(tensor=(phantom > 0.5).float()))
        assert torch.equal(RandomImageMotion()(labels)["mask"].data, labels["mask"].data)


class TestDeterministic:
    def test_is_the_function_with_the_images_affine(self, subject):
        course = Trajectory([0, 0.6], [[0, 0, 0], [1, 2, -3]], [[0, 0, 0], [4, -5, 6]], "hold")
        transform = ImageMotion(course.times, course.translation_mm, course.rotation_deg, axis=2)
        expected = image_motion(subject["t1"].data, course, affine=AFFINE, axis=2)
        assert torch.equal(transform(subject)["t1"].data, expected)

    def test_every_channel_moves_alike(self, phantom):
        both = tio.ScalarImage(tensor=torch.cat([phantom, 2 * phantom]), affine=AFFINE)
        moved = KSpaceMotion([0, 1], np.zeros((2, 3)), [[0, 0, 0], [0, 0, 5]])(both)
        assert moved.data.shape == (2, 24, 28, 24)
        assert torch.allclose(moved.data[1], 2 * moved.data[0], rtol=1e-4, atol=1e-4)

    def test_whole_number_scans_are_taken(self, phantom):
        whole = tio.ScalarImage(tensor=(phantom * 100).short(), affine=AFFINE)
        assert RandomImageMotion()(whole).data.dtype == torch.float32

    def test_normalised_scans_are_refused_with_the_remedy(self, phantom):
        normal = tio.ScalarImage(tensor=phantom - phantom.mean(), affine=AFFINE)
        with pytest.raises(ValueError, match="before z-scoring"):
            RandomImageMotion()(normal)


class TestPaper:
    @pytest.mark.parametrize("seed", [0, 7, 42])
    def test_image_preset_is_torchio_with_the_same_seed(self, seed, subject):
        torch.manual_seed(seed)
        theirs = tio.RandomMotion(degrees=(2, 4), translation=(2, 4), num_transforms=4)(subject)
        torch.manual_seed(seed)
        ours = RandomImageMotion.paper(range_mm=(2, 4), range_deg=(2, 4))(subject)
        for name in ("t1", "t2"):
            one, two = ours[name].data.double(), theirs[name].data.double()
            assert float((one - two).norm() / two.norm()) < 2e-6

    def test_kspace_preset_has_two_hundred_points_within_the_range(self, subject):
        (history,) = RandomKSpaceMotion.paper(range_mm=(4, 6), range_deg=(6, 8))(subject).history
        shifts = np.array(history.translation_mm["t1"])
        assert shifts.shape == (200, 3)
        largest = np.linalg.norm(shifts[:, None] - shifts[None], axis=-1).max()
        assert 4 <= largest <= 6
        assert history.axis == 1
        assert history.output == "magnitude"

    @pytest.mark.parametrize("make", [RandomImageMotion, RandomKSpaceMotion])
    def test_reversed_ranges_are_refused_at_once(self, make):
        with pytest.raises(ValueError, match="translation_mm"):
            make(range_mm=(4, 2))

    @pytest.mark.parametrize("make", [RandomImageMotion, RandomKSpaceMotion])
    @pytest.mark.parametrize("option", ["axes", "keep_centre"])
    def test_misspelt_options_are_refused(self, make, option):
        with pytest.raises(TypeError, match=option):
            make(**{option: 1})

    def test_torchio_order_has_no_signs(self):
        with pytest.raises(ValueError, match="signed=False"):
            RandomImageMotion(torchio_order=True)
