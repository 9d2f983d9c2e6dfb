"""The lesson of the leaky split."""

import pytest

from motionlib.experiments import checks


@pytest.fixture
def visits(rng):
    """Twelve patients, three visits each, alike but for noise."""
    heads = rng.uniform(size=(12, 16, 16, 16))
    volumes = [head + rng.normal(0, 0.05, head.shape) for head in heads for _ in range(3)]
    return volumes, [f"p{i}" for i in range(12) for _ in range(3)]


class TestCoinLesson:
    def test_splitting_by_image_finds_what_is_not_there_and_by_patient_does_not(self, visits):
        table = checks.coin_lesson(*visits, n_repeats=10, n_folds=4)
        mean = table.groupby("split").accuracy.mean()
        assert mean["by image"] > 0.9
        assert 0.3 < mean["by patient"] < 0.65

    def test_one_scan_a_patient_is_refused(self, visits):
        with pytest.raises(ValueError, match="several visits"):
            checks.coin_lesson(visits[0][::3], [f"p{i}" for i in range(12)])
