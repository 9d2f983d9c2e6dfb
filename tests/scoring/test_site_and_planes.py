"""Limits set by ungraded scans of a site; slabs, 2-D protocols and single planes."""

import numpy as np
import pandas as pd
import pytest
import torch
from scoring_set import HEAD_MM, head, write_heads, write_model

from motionlib.cli import main
from motionlib.networks import build_network
from motionlib.preprocess.images import save_volume
from motionlib.scoring import model as rules
from motionlib.scoring.check import check_planes, check_scan
from motionlib.scoring.model import plane_input, read_rule, rule_of_site
from motionlib.scoring.score import _row

FIELD_MM = (192.0, 240.0, 208.0)


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Fresh weights of the network that the shipped model has, at the voxels of the heads."""
    return write_model(
        tmp_path_factory.mktemp("model"), spacing_mm=HEAD_MM, network="Slices",
        field_mm=FIELD_MM, options={"members": 1}, dropout=0.0, threshold=0.999, review=None,
    )  # fmt: skip


def scored(tmp_path, *words) -> pd.DataFrame:
    out = tmp_path / "s.tsv"
    main(["score", *map(str, words), "--out", str(out), "--no-report"])
    return pd.read_csv(out, sep="\t").set_index("scan_id")


def thick(array, affine, axis, factor):
    """Planes of a 2-D protocol: `factor` voxels averaged along an axis."""
    n = array.shape[axis] // factor * factor
    kept = np.moveaxis(array, axis, 0)[:n]
    kept = kept.reshape(-1, factor, *kept.shape[1:]).mean(1)
    scale = np.ones(4)
    scale[axis] = factor
    return np.moveaxis(kept, 0, axis), affine @ np.diag(scale)


class TestPlanes:
    def few(self, kind):
        array, affine = head(1)
        return {
            "sagittal": (array[18:23], affine),  # 20 mm
            "axial": (array[:, :, 24:34], affine),
            "single": (array[:, :, 30:31], affine),
            "thick": thick(array, affine, 2, 3),  # of 12 mm
            "coronal": thick(array[:, 8:48], affine, 1, 3),
        }[kind]

    @pytest.mark.parametrize(
        ("kind", "said"),
        [
            ("sagittal", "a slab, 20 mm from left to right"),
            ("axial", "a slab, 40 mm from top to bottom"),
            ("single", "a slab, 4 mm from top to bottom"),
            ("thick", "planes of 12 mm, 204 mm from top to bottom"),
            ("coronal", "planes of 12 mm, 156 mm from front to back"),
        ],
    )
    def test_they_are_scored_and_left_to_a_person(self, slices, tmp_path, kind, said):
        path = save_volume(*self.few(kind), tmp_path / f"{kind}.nii.gz")
        row = scored(tmp_path, path, "--model", slices).loc[kind]
        assert 0 < row["p_motion"] < 1
        assert (row["decision"], bool(row["abstained"])) == ("review", False)
        assert said in row["reason"]

    def test_a_network_that_needs_a_whole_head_refuses_them(self, tmp_path):
        model = write_model(tmp_path / "model", spacing_mm=HEAD_MM)
        path = save_volume(*self.few("sagittal"), tmp_path / "slab.nii.gz")
        row = scored(tmp_path, path, "--model", model).loc["slab"]
        assert bool(row["abstained"])
        assert "at least 8 voxels" in row["reason"]

    def test_a_whole_head_is_none_of_them_and_neither_are_coarse_voxels(self):
        array, affine = head(1)
        assert check_planes(array, affine, spacing_mm=HEAD_MM) is None
        assert check_planes(array, affine, spacing_mm=1.5) is None

    def test_coarse_voxels_are_scored_with_a_remark(self):
        array, affine = head(1)
        at = {
            mm: check_scan(array, affine, spacing_mm=mm, knows_stripped=True) for mm in (3.0, 4.0)
        }
        assert [check.fault for check in at.values()] == ["", ""]
        assert "coarser than the model's 3" in at[3.0].note
        assert at[4.0].note == ""

    def test_where_the_head_lies_in_the_field_does_not_matter(self):
        array, affine = self.few("sagittal")
        wide = np.pad(array, ((0, 0), (9, 2), (1, 12)))
        a, b = (plane_input(x, affine, 0, HEAD_MM, FIELD_MM) for x in (array, wide))
        assert a.shape == (5, 60, 52)
        np.testing.assert_allclose(a, b, atol=0.02)

    @pytest.mark.parametrize("kind", ["dark", "noise"])
    def test_planes_with_nothing_on_them_are_told(self, slices, tmp_path, kind):
        array, affine = self.few("axial")
        noise = np.random.default_rng(0).normal(100, 5, array.shape)
        path = save_volume(
            np.where(array > 900, array, 0) if kind == "dark" else noise, affine,
            tmp_path / f"{kind}.nii.gz",
        )  # fmt: skip
        row = scored(tmp_path, path, "--model", slices).loc[kind]
        assert bool(row["abstained"])
        assert "no plane shows a head" in row["reason"]

    def test_the_score_of_a_head_is_the_mean_over_its_three_axes(self):
        torch.manual_seed(0)
        network = build_network("Slices", (24, 24, 24), members=2).eval()
        x = torch.zeros(1, 1, 24, 24, 24)
        x[:, :, 4:20, 4:20, 4:20] = 1 + torch.rand(16, 16, 16)
        with torch.inference_mode():
            each = torch.stack([network.across(x, axis) for axis in range(3)])
            torch.testing.assert_close(each.mean(0), network(x))


class TestSite:
    @pytest.fixture
    def rule(self, tmp_path):
        return read_rule(write_model(tmp_path / "model", threshold=0.9, review=[0.2, 0.9]))

    def share_doubted(self, rule, n, moved):
        """Share of a site's still scans above the limits of many samples of it."""
        rng, shares = np.random.default_rng(0), []
        for _ in range(200):
            site = rng.normal(-3, 0.3, n) + 2 * (np.arange(n) < moved * n)
            low = rule_of_site(rule, list(site)).review[0]
            still = [rule.probability(z) for z in rng.normal(-3, 0.3, 100)]
            shares.append(np.mean(np.array(still) >= low))
        return np.mean(shares)

    @pytest.mark.parametrize("n", [20, 50, 200])
    def test_about_the_share_aimed_at_is_doubted_and_fewer_if_a_quarter_moved(self, rule, n):
        assert 0.06 < self.share_doubted(rule, n, 0.0) < 1.05 * rules.DOUBT
        assert self.share_doubted(rule, n, 0.25) < 0.6 * rules.DOUBT

    def test_few_scans_set_nothing_and_it_is_said(self, rule):
        found = rule_of_site(rule, [0.0] * 19)
        assert (found.threshold, found.review) == (rule.threshold, rule.review)
        assert "Found 19 scans" in found.site
        assert "at least 20" in found.site

    def test_a_row_says_whose_range_it_lies_in(self, rule, rng):
        few, many = (rule_of_site(rule, list(rng.normal(-3, 0.3, n))) for n in (19, 40))
        result = {"fault": "", "note": "", "logit": 0.0, "air": 0.1}
        said = [_row("s", "p", result, each)["reason"] for each in (rule, few, many)]
        assert ["model's" in words for words in said] == [True, True, False]
        assert "site's" in said[2]

    def test_a_site_of_a_higher_level_raises_the_threshold_and_none_lowers_it(self, rule):
        rng = np.random.default_rng(0)
        low, high = (rule_of_site(rule, list(rng.normal(m, 0.3, 40))) for m in (-4.0, 4.0))
        assert low.threshold == rule.threshold == low.review[1]
        assert low.review[0] < 0.1
        assert high.threshold == high.review[0] == high.review[1] > 0.98

    def test_the_command_takes_a_folder_or_the_scans_themselves(
        self, slices, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setattr(rules, "LEAST_SITE", 5)
        paths = write_heads(tmp_path / "site", 5)
        alone = scored(tmp_path, *paths, "--model", slices)
        assert (alone["decision"] == "keep").all()
        for words in ([tmp_path / "site"], ["same"]):
            rows = scored(tmp_path, *paths, "--model", slices, "--site-scans", *words)
            assert "by 5 ungraded scans of the site" in capsys.readouterr().err
            np.testing.assert_allclose(rows["p_motion"], alone["p_motion"])
        monkeypatch.setattr(rules, "LEAST_SITE", 20)
        rows = scored(tmp_path, *paths, "--model", slices, "--site-scans", "same")
        assert "no limit of the site is set" in capsys.readouterr().err
        assert (rows["decision"] == "keep").all()
