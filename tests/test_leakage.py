"""The leak: a split by image flatters, a split by patient does not."""

import numpy as np
import pandas as pd
import pytest

from motionlib.leakage import coin_by_patient, compare_splits, fingerprints


@pytest.fixture
def visits(rng):
    """Sixty patients with two scans each: alike within a patient, not between."""
    heads = rng.random((60, 14, 16, 14), dtype=np.float32)
    scans = np.repeat(heads, 2, axis=0)
    scans += 0.05 * rng.random(scans.shape, dtype=np.float32)
    return scans, pd.Series(np.repeat(np.arange(60), 2)).astype(str)


class TestFingerprints:
    def test_brightness_and_contrast_do_not_matter(self, visits):
        scans, _ = visits
        np.testing.assert_allclose(
            fingerprints(scans[:2]), fingerprints(3 * scans[:2] + 7), atol=1e-5
        )

    def test_block_means_are_right(self):
        ramp = np.broadcast_to(np.arange(24.0)[:, None, None], (24, 24, 24))
        blocks = fingerprints([ramp])[0].reshape(12, 12, 12)
        np.testing.assert_allclose(np.diff(blocks[:, 0, 0], n=2), 0, atol=1e-6)
        assert blocks[0, 0, 0] < blocks[11, 0, 0]


class TestCoin:
    def test_one_coin_a_patient(self, visits):
        _, patients = visits
        coin = coin_by_patient(patients, seed=1)
        assert pd.Series(coin).groupby(patients).nunique().max() == 1
        assert coin.mean() == 0.5


class TestCompareSplits:
    def test_a_coin_is_known_by_image_and_not_by_patient(self, visits):
        scans, patients = visits
        labels = {"coin": coin_by_patient(patients, seed=1)}
        row = compare_splits(fingerprints(scans), patients, labels, seed=0).iloc[0]
        assert row["by_image"] > 0.75
        assert 0.3 < row["by_patient"] < 0.7
        assert row["flattery"] == pytest.approx(row["by_image"] - row["by_patient"])
