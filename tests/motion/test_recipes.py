"""Recipes and controls."""

import numpy as np
import pytest
import torch

from motionlib.motion.recipes import CONTROLS, LADDER, bounds, make_variant

AFFINE = np.diag([6.0, 6.0, 6.0, 1.0])
RECIPES = [f"{simulator}_2-4_paper" for simulator in ("image", "kspace", "drift")]
RECIPES.append("acquired_0.5-8_recommended")


@pytest.fixture
def head(phantom):
    return phantom[0]


def _make(head, name, seed=0):
    return make_variant(head, AFFINE, name, np.random.default_rng(seed))


class TestBounds:
    def test_reads_a_range(self):
        assert bounds("0.5-1") == (0.5, 1.0)

    @pytest.mark.parametrize("text", ["2", "4-2", "a-b", ""])
    def test_refuses_anything_else_in_one_sentence(self, text):
        with pytest.raises(ValueError, match="expected a range"):
            bounds(text)


class TestMakeVariant:
    @pytest.mark.parametrize("name", [*CONTROLS, "still", *LADDER, *RECIPES])
    def test_keeps_shape_and_type_and_leaves_the_input_alone(self, head, name):
        before = head.clone()
        copy = _make(head, name)
        assert copy.shape == head.shape
        assert copy.dtype == torch.float32
        assert torch.isfinite(copy).all()
        assert torch.equal(head, before)

    @pytest.mark.parametrize("name", ["acquired_2-8_recommended", "still", "noisier", "contrast"])
    def test_same_generator_same_copy(self, head, name):
        assert torch.equal(_make(head, name), _make(head, name))

    def test_clean_is_the_scan_itself(self, head):
        assert torch.equal(_make(head, "clean"), head)

    def test_the_papers_image_recipe_makes_negative_voxels_and_the_recommended_does_not(self, head):
        assert min(_make(head, "image_6-8_paper", s).min() for s in range(3)) < 0
        assert min(_make(head, "acquired_6-8_recommended", s).min() for s in range(3)) >= 0

    def test_the_ladder_rises(self, head):
        means = [
            np.mean([float((_make(head, rung, s) - head).norm()) for s in range(6)])
            for rung in LADDER
        ]
        assert means == sorted(means)

    def test_an_unknown_name_is_refused(self, head):
        with pytest.raises(ValueError, match="unknown"):
            _make(head, "image_2-4_magic")
