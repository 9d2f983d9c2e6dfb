"""Tests of `motionlib.cohorts.virtual.heads`, its atlas, tissues and signal equations."""

import numpy as np
import pytest

from motionlib.cohorts.virtual import atlas, heads
from motionlib.cohorts.virtual import signal as protocols
from motionlib.cohorts.virtual.anatomy import draw_anatomy
from motionlib.cohorts.virtual.heads import render_head
from motionlib.cohorts.virtual.signal import TISSUES, tissue_signal

COARSE_MM = 8.0


def make_head(seed, *, spacing_mm=COARSE_MM, age=50.0):
    """A new patient, laid into a scanner."""
    rng = np.random.default_rng(seed)
    return render_head(draw_anatomy(rng, age=age), spacing_mm=spacing_mm, rng=rng)


def fractions_of(head):
    """Fractions of every voxel, (14, I, J, K)."""
    maps = np.zeros((len(TISSUES), int(np.prod(head.shape))), np.float32)
    maps[TISSUES.index("air")] = 1
    maps[:, head.index] = head.fractions
    return maps.reshape(-1, *head.shape)


@pytest.fixture(scope="module")
def head():
    return make_head(1, age=70)


def signal_of(protocol, **options):
    return dict(zip(TISSUES, tissue_signal(protocol, **options), strict=True))


class TestSignal:
    @pytest.mark.parametrize("protocol", protocols.ADNI + protocols.MSSEG + protocols.BITE)
    def test_t1w_order_holds_under_every_research_protocol(self, protocol):
        signal = signal_of(protocol)
        assert 0 <= signal["air"] < 0.05
        assert signal["bone"] < 0.05
        assert signal["csf"] < 0.6 * signal["grey"]
        assert signal["grey"] < 0.9 * signal["white"]
        assert signal["fat"] > 1.3 * signal["white"]

    def test_gadolinium_brightens_vessels_and_rim_but_hardly_the_brain(self):
        plain = signal_of(protocols.MSSEG[1])
        dosed = signal_of(protocols.MSSEG[1], gadolinium=1.0)
        assert dosed["vessel"] > 3 * plain["vessel"]
        assert dosed["rim"] > 2 * plain["rim"]
        assert dosed["csf"] / plain["csf"] == pytest.approx(1, abs=0.1)

    def test_spgr_equals_the_ernst_maximum_at_the_ernst_angle(self):
        t1 = np.array([800.0])
        ernst = np.rad2deg(np.arccos(np.exp(-20 / 800)))
        timing = {"tr_ms": 20, "te_ms": 0.0}
        one, inf = np.ones(1), np.full(1, np.inf)
        best = protocols.spgr_signal(t1, one, inf, flip_deg=ernst, **timing)
        for other in (ernst - 2, ernst + 2):
            assert protocols.spgr_signal(t1, one, inf, flip_deg=other, **timing) < best

    def test_mprage_agrees_with_stepping_the_magnetisation_through_many_cycles(self):
        t1, tr, ti, flip, spacing, n = 900.0, 2300.0, 950.0, 9.0, 8.0, 100
        m, middle = 1.0, 0.0
        for _ in range(30):
            m = 1 - (1 + m) * np.exp(-(ti - n * spacing / 2) / t1)
            for echo in range(n):
                middle = m if echo == n // 2 else middle
                m = 1 - (1 - m * np.cos(np.deg2rad(flip))) * np.exp(-spacing / t1)
            m = 1 - (1 - m) * np.exp(-(tr - ti - n * spacing / 2) / t1)
        ones, slow = np.ones(1), np.full(1, np.inf)
        found = protocols.mprage_signal(
            np.array([t1]), ones, slow, tr_ms=tr, te_ms=0.0, ti_ms=ti, flip_deg=flip,
            echo_spacing_ms=spacing, n_echoes=n,
        )  # fmt: skip
        assert found[0] == pytest.approx(abs(middle) * np.sin(np.deg2rad(flip)), rel=0.01)

    def test_impossible_timing_and_field_are_refused(self):
        with pytest.raises(ValueError, match="does not fit"):
            protocols.mprage_signal(
                np.ones(1), np.ones(1), np.ones(1), tr_ms=900, te_ms=3, ti_ms=800, flip_deg=8,
                echo_spacing_ms=8, n_echoes=160,
            )  # fmt: skip
        with pytest.raises(ValueError, match="not in the tables"):
            protocols.relaxation(7.0)


class TestHead:
    def test_fractions_are_a_partition_of_every_voxel(self, head):
        assert head.fractions.min() > -1e-6
        np.testing.assert_allclose(fractions_of(head).sum(axis=0), 1, atol=1e-5)

    def test_layers_lie_in_anatomical_order_above_the_brain(self):
        fine = make_head(3, spacing_mm=3.0, age=30)
        tissue = fractions_of(fine)
        i, j = fine.shape[0] // 2, fine.shape[1] // 2
        column = tissue[:, i - 6 : i - 3, j - 2 : j + 2].mean(axis=(1, 2))
        top = {name: np.flatnonzero(column[TISSUES.index(name)] > 0.3) for name in TISSUES}
        assert top["white"].max() < top["bone"].max() < top["fat"].max()
        assert column[0, -1] == pytest.approx(1, abs=1e-5)

    def test_brain_is_of_human_size(self, head):
        volume_ml = head.fractions[[2, 3]].sum() * COARSE_MM**3 / 1000
        assert 700 < volume_ml < 1700

    def test_same_seed_same_bits_other_seed_other_head(self):
        one, two, three = (make_head(seed) for seed in (5, 5, 6))
        np.testing.assert_array_equal(one.fractions, two.fractions)
        np.testing.assert_array_equal(one.affine, two.affine)
        assert one.fractions.shape != three.fractions.shape or not np.allclose(
            one.fractions, three.fractions
        )

    def test_ventricles_grow_with_the_patient_s_atrophy(self):
        def fluid(growth):
            anatomy = draw_anatomy(np.random.default_rng(2), age=50, ventricle=growth)
            head = render_head(anatomy, spacing_mm=COARSE_MM, rng=np.random.default_rng(0))
            return head.fractions[TISSUES.index("csf")].sum()

        assert fluid(4.0) > fluid(0.0) * 1.1

    def test_resection_replaces_the_tumour_by_fluid(self):
        anatomy = draw_anatomy(np.random.default_rng(7), tumour=True)
        before, after = (
            render_head(
                anatomy, spacing_mm=COARSE_MM, rng=np.random.default_rng(0), resected=resected
            )
            for resected in (False, True)
        )
        core, csf = TISSUES.index("tumour"), TISSUES.index("csf")
        assert before.fractions[core].sum() > 1
        assert after.fractions[core].sum() == 0
        assert after.fractions[csf].sum() > before.fractions[csf].sum()

    def test_lesions_appear_in_white_matter(self):
        options = {"spacing_mm": COARSE_MM, "rng": np.random.default_rng(0)}
        plain = render_head(draw_anatomy(np.random.default_rng(4)), **options)
        ill = render_head(
            draw_anatomy(np.random.default_rng(4), lesions=25, enhancing=3),
            **options,
        )
        lesion = TISSUES.index("lesion")
        assert plain.fractions[lesion].sum() == 0
        assert ill.fractions[lesion].sum() > 0.5

    def test_two_visits_show_the_same_patient_in_another_pose(self):
        anatomy = draw_anatomy(np.random.default_rng(8))
        first, second = (
            render_head(anatomy, spacing_mm=COARSE_MM, rng=np.random.default_rng(s)) for s in (0, 1)
        )
        assert not np.array_equal(first.affine, second.affine)
        brains = [h.fractions[[2, 3]].sum() for h in (first, second)]
        assert brains[0] == pytest.approx(brains[1], rel=0.03)


class TestContrast:
    def test_contrast_is_non_negative_silent_in_air_and_ordered(self, head):
        volume = heads.acquire_contrast(head, protocols.ADNI[0])
        assert volume.dtype == np.float32
        assert volume.min() == 0
        labels = fractions_of(head).argmax(axis=0)
        means = {
            n: volume[labels == TISSUES.index(n)].mean() for n in ("air", "csf", "grey", "white")
        }
        assert means["air"] < 0.1 < means["csf"] < means["grey"] < means["white"]

    def test_bias_field_is_smooth_and_as_strong_as_asked(self):
        field = np.log(heads.bias_field((24, 28, 24), 0.2, np.random.default_rng(0)))
        assert 0.03 < field.std() < 0.5
        assert np.abs(np.diff(field, axis=0)).max() < 0.2

    def test_the_signal_fades_at_the_lower_end(self):
        fade = heads.lower_end((24, 28, 24), np.diag([8.0, 8, 8, 1]))
        assert (np.diff(fade) >= 0).all()
        assert fade[0] < 0.3 * fade[12]


def test_atlas_spacing_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="1 to 4 mm"):
        atlas.build_atlas(9.0)
