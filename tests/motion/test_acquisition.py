"""A scanner that knows its protocol: special cases, order, gaps, coils, phase and noise."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from motionlib.motion.acquisition import NAMED, Acquisition, acquire, group_poses
from motionlib.motion.coils import sensitivities
from motionlib.motion.image_based import image_motion
from motionlib.motion.kspace_based import kspace_motion
from motionlib.motion.resampling import sampling_maps
from motionlib.motion.sampling import sample_realistic, sample_segments, sample_time_course
from motionlib.motion.trajectory import Trajectory

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
STILL = Trajectory.identity()
SIDECAR = {
    "Manufacturer": "Siemens",
    "MRAcquisitionType": "3D",
    "PartialFourier": 0.875,
    "RefLinesPE": 24,
    "ParallelReductionFactorInPlane": 2,
    "ImageOrientationPatientDICOM": [-0.042, 0.995, -0.09, 0.062, -0.088, -0.994],
    "InPlanePhaseEncodingDirectionDICOM": "ROW",
}


def distance(one, two) -> float:
    """Relative L2 distance from `two`."""
    return float((one - two).double().norm() / two.double().norm())


def step(time, shift=(0.0, 6.0, 0.0)):
    """Head that lies still, jumps at `time`, and lies still again."""
    return Trajectory([0, time], [[0, 0, 0], shift], np.zeros((2, 3)), "hold")


def scan(volume, trajectory, rng=0, **options):
    """Acquire with a protocol given by keywords."""
    return acquire(volume, trajectory, Acquisition(**options), affine=AFFINE, rng=rng)


class TestSpecialCases:
    def test_papers_image_simulator(self, phantom):
        course = sample_segments(translation_mm=(2, 8), rotation_deg=(2, 8), rng=3)
        plain = Acquisition.named("image_simulator")
        ours = acquire(phantom, course.with_centre_kept(), plain, affine=AFFINE, rng=0)
        assert distance(ours, image_motion(phantom, course, affine=AFFINE, axis=2)) < 1e-6

    def test_papers_kspace_simulator(self, phantom):
        course = sample_time_course(translation_mm=(4, 6), rotation_deg=(4, 6), rng=3)
        plain = Acquisition.named("kspace_simulator")
        ours = acquire(phantom, course, plain, affine=AFFINE, rng=0)
        theirs = kspace_motion(phantom, course, affine=AFFINE, axis=1, pad_vox=0)
        assert distance(ours, theirs) < 1e-6

    @pytest.mark.parametrize("name", NAMED)
    def test_every_protocol_gives_a_head_of_the_same_shape(self, name, phantom):
        before = phantom.clone()
        moved = acquire(phantom, step(0.6), Acquisition.named(name), affine=AFFINE, rng=1)
        still = acquire(phantom, STILL, Acquisition.named(name), affine=AFFINE, rng=1)
        assert (moved.shape, moved.dtype) == (phantom.shape, torch.float32)
        assert torch.equal(phantom, before)
        assert float(still.min()) >= 0
        assert distance(still, phantom) < 0.2
        assert distance(moved, phantom) > distance(still, phantom)

    def test_same_seed_same_bits(self, phantom):
        noisy = Acquisition(noise_sd=0.05, phase=True)
        one, two, other = (
            acquire(phantom, step(0.6), noisy, affine=AFFINE, rng=seed) for seed in (4, 4, 5)
        )
        assert torch.equal(one, two)
        assert not torch.equal(one, other)


class TestOrder:
    def test_linear_runs_from_one_edge_to_the_other(self):
        np.testing.assert_array_equal(Acquisition().slow_lines(6), np.arange(6))

    def test_centric_starts_in_the_middle(self):
        np.testing.assert_array_equal(
            Acquisition(order="centric").slow_lines(7), [3, 2, 4, 1, 5, 0, 6]
        )

    def test_segments_interleave(self):
        lines = Acquisition(order="segmented", n_segments=3).slow_lines(8)
        np.testing.assert_array_equal(lines, [0, 3, 6, 1, 4, 7, 2, 5])

    @pytest.mark.parametrize("n", [24, 57, 70])
    @pytest.mark.parametrize("name", NAMED)
    def test_every_acquired_line_is_taken_once(self, name, n):
        protocol = Acquisition.named(name)
        lines = protocol.slow_lines(n)
        assert len(set(lines)) == len(lines)
        if protocol.slow_axis == protocol.phase_axis:
            np.testing.assert_array_equal(np.sort(lines), np.flatnonzero(protocol.sampled(n)))
        times = protocol.line_times(n)
        assert (times[lines] == np.sort(times[lines])).all()
        assert np.isnan(times).sum() == n - lines.size

    @pytest.mark.parametrize(("order", "worst"), [("linear", "middle"), ("centric", "start")])
    def test_sensitive_moment(self, order, worst, phantom):
        """A short excursion hurts most while the centre of k-space is acquired."""

        def excursion(start):
            times = [0, start, start + 0.1]
            shifts = [[0, 0, 0], [6, 0, 0], [0, 0, 0]]
            return Trajectory(times, shifts, np.zeros((3, 3)), "hold")

        still = scan(phantom, STILL, order=order)
        moments = {"start": 0.01, "middle": 0.47, "end": 0.89}
        errors = {
            name: distance(scan(phantom, excursion(t), order=order), still)
            for name, t in moments.items()
        }
        assert max(errors, key=errors.get) == worst
        others = [value for name, value in errors.items() if name != worst]
        assert errors[worst] > 2 * max(others)

    def test_step_outside_the_acquired_interval_changes_nothing(self, phantom):
        options = {"interval": (0.2, 0.7), "noise_sd": 0.02}
        still = scan(phantom, STILL, **options)
        for time in (0.7, 0.9, 1.0):
            assert torch.equal(scan(phantom, step(time), **options), still)
        assert distance(scan(phantom, step(0.5), **options), still) > 0.05

    def test_step_after_the_last_line_changes_nothing(self, phantom):
        assert torch.equal(scan(phantom, step(1.0)), scan(phantom, STILL))


class TestGhosts:
    @pytest.mark.parametrize("interpolation", ["sinc", "linear"])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_run_along_the_slow_axis_and_no_other(self, axis, interpolation):
        cube = torch.zeros(28, 28, 28)
        cube[10:18, 10:18, 10:18] = 1
        shift = 6.0 * np.eye(3)[axis]
        course = Trajectory([0, 0.4, 0.6], [0 * shift, shift, -shift], np.zeros((3, 3)), "hold")
        options = {"phase_axis": axis, "interpolation": interpolation}
        change = (scan(cube, course, **options) - cube).abs().amax(dim=axis)
        shadow = cube.amax(dim=axis).bool()
        assert float(change[shadow].min()) > 0.1
        assert float(change[~shadow].max()) < 2e-3

    def test_slow_loop_decides_not_the_phase_encoding(self):
        cube = torch.zeros(28, 28, 28)
        cube[10:18, 10:18, 10:18] = 1
        course = Trajectory([0, 0.55], [[0, 0, 0], [6, 0, 0]], np.zeros((2, 3)), "hold")
        change = (scan(cube, course, phase_axis=1, slow_axis=0) - cube).abs()
        assert float(change.amax(dim=0)[~cube.amax(dim=0).bool()].max()) < 2e-3
        assert float(change.amax(dim=1)[~cube.amax(dim=1).bool()].max()) > 0.05


class TestGaps:
    @pytest.mark.parametrize("slow_axis", [1, 2])
    def test_partial_fourier_blurs_along_the_phase_axis_only(self, slow_axis):
        cube = torch.zeros(28, 28, 28)
        cube[10:18, 10:18, 10:18] = 1
        short = scan(cube, STILL, partial_fourier=0.7, slow_axis=slow_axis)
        change = (short - cube).abs().amax(dim=1)
        shadow = cube.amax(dim=1).bool()
        assert float(change[shadow].min()) > 0.05
        assert float(change[~shadow].max()) < 2e-3

    def test_reference_lines_are_fully_sampled_in_the_middle(self):
        protocol = Acquisition(acceleration=3, reference_lines=10, n_coils=4)
        sampled = protocol.sampled(61)
        assert sampled[protocol.reference(61)].all()
        assert protocol.reference(61)[0] <= 30 <= protocol.reference(61)[-1]
        expected = {*range(25, 35), *range(1, 61, 3)}
        assert set(np.flatnonzero(sampled)) == expected

    @pytest.mark.parametrize(("acceleration", "n_coils", "limit"), [(2, 4, 0.05), (2, 8, 0.05)])
    def test_skipped_lines_are_recovered_from_the_coils(self, acceleration, n_coils, limit):
        from motionlib.preprocess.images import phantom

        head = phantom((32, 60, 32))
        options = {"n_coils": n_coils, "acceleration": acceleration, "reference_lines": 20}
        recovered = scan(head, STILL, **options)
        protocol = Acquisition(**options)
        spectrum = torch.fft.fftshift(torch.fft.fft(head[0], dim=1), dim=1)
        spectrum[:, torch.as_tensor(~protocol.sampled(60))] = 0
        folded = torch.fft.ifft(torch.fft.ifftshift(spectrum, dim=1), dim=1).abs()
        assert distance(recovered, head) < limit
        assert distance(recovered, head) < distance(folded, head[0]) / 3

    def test_too_few_reference_lines_are_refused(self, phantom):
        with pytest.raises(ValueError, match="use at least 7"):
            scan(phantom, STILL, n_coils=4, acceleration=2, reference_lines=6)

    def test_oversampling_lets_ghosts_leave_the_field_of_view(self, phantom):
        course = step(0.3, (0.0, 15.0, 0.0))
        plain, larger = (scan(phantom, course, oversampling=f) for f in (0.0, 1.0))
        assert plain.shape == larger.shape
        edge = (slice(None), slice(None), slice(0, 2))
        assert float(larger[edge].mean()) < float(plain[edge].mean())


class TestCoils:
    @pytest.mark.parametrize("n_coils", [1, 4, 8])
    def test_squares_add_up_to_one(self, n_coils):
        maps = sensitivities((9, 10, 11), n_coils)
        assert maps.shape == (n_coils, 9, 10, 11)
        assert torch.allclose(maps.abs().square().sum(0), torch.ones(9, 10, 11), atol=1e-6)

    def test_still_head_is_the_same_with_any_number_of_coils(self, phantom):
        for n_coils in (1, 2, 6):
            assert distance(scan(phantom, STILL, n_coils=n_coils), phantom) < 3e-4

    def test_head_moves_under_fixed_coils(self, phantom):
        """Turning the coils with the head would give the one-coil scan exactly."""
        course = Trajectory([0, 0.55], np.zeros((2, 3)), [[0, 0, 0], [0, 0, 8]], "hold")
        one, many = (scan(phantom, course, n_coils=n, interpolation="linear") for n in (1, 8))
        assert 1e-3 < distance(many, one) < 0.1

    def test_sharp_and_linear_routes_agree_for_several_coils(self, phantom):
        one = scan(phantom, step(0.6), n_coils=1)
        many = scan(phantom, step(0.6, (0.0, 6.0, 0.0)), n_coils=2)
        assert distance(many, one) < 0.05

    def test_phase_changes_nothing_in_a_full_still_scan(self, phantom):
        for n_coils in (1, 4):
            assert distance(scan(phantom, STILL, phase=True, n_coils=n_coils), phantom) < 3e-4

    def test_phase_matters_with_partial_fourier(self, phantom):
        without, with_phase = (
            scan(phantom, STILL, phase=p, partial_fourier=0.7) for p in (False, True)
        )
        assert distance(with_phase, without) > 0.01


class TestNoise:
    @pytest.mark.parametrize(
        "options", [{}, {"order": "centric"}, {"n_coils": 4}, {"interpolation": "linear"}]
    )
    def test_air_is_rayleigh_and_the_head_is_unbiased(self, options):
        head = torch.zeros(1, 40, 40, 40)
        head[:, 12:28, 12:28, 12:28] = 100.0
        noisy = scan(head, STILL, noise_sd=0.05, **options)[0]
        air = noisy[:8].flatten().double()
        sigma = 0.05 * 100
        # Rician without signal: mean sigma * sqrt(pi / 2), second moment 2 sigma^2
        assert float(air.mean()) == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.03)
        assert float(air.square().mean()) == pytest.approx(2 * sigma**2, rel=0.05)
        inside = noisy[14:26, 14:26, 14:26].double()
        assert float(inside.std()) == pytest.approx(sigma, rel=0.1)
        assert float(inside.mean()) == pytest.approx(np.hypot(100, sigma / np.sqrt(2)), rel=0.01)

    def test_zero_noise_leaves_air_empty(self, phantom):
        assert float(scan(phantom, STILL)[0, 0].max()) < 1e-3


class TestGroupPoses:
    def test_few_poses_are_all_kept(self, rng):
        maps = sampling_maps(rng.normal(size=(10, 3)) * 1e-4, np.zeros((10, 3)), AFFINE, (24,) * 3)
        leaders, owner = group_poses(maps, (24, 24, 24))
        assert len(leaders) == 10
        np.testing.assert_array_equal(owner, np.arange(10))

    def test_many_poses_are_merged_within_the_tolerance(self):
        shifts = np.linspace(0, 2, 200)[:, None] * np.array([[0.0, 1.0, 0.0]])
        maps = sampling_maps(shifts, np.zeros((200, 3)), AFFINE, (24,) * 3)
        leaders, owner = group_poses(maps, (24, 24, 24))
        assert len(leaders) <= 48
        error = np.abs(shifts - shifts[leaders][owner]).max() / 3.0
        assert error <= 0.05 + 1e-9

    def test_violent_motion_never_needs_more_than_the_limit(self, rng):
        maps = sampling_maps(rng.normal(size=(200, 3)) * 9, np.zeros((200, 3)), AFFINE, (24,) * 3)
        assert len(group_poses(maps, (24, 24, 24))[0]) <= 48


class TestSidecar:
    def test_mr_art_header_is_understood(self, tmp_path):
        path = tmp_path / "scan.json"
        path.write_text(json.dumps(SIDECAR))
        protocol = Acquisition.from_sidecar(path)
        assert (protocol.phase_axis, protocol.slow_axis, protocol.order) == (1, 1, "linear")
        assert (protocol.acceleration, protocol.reference_lines) == (2, 24)
        assert protocol.partial_fourier == 0.875
        assert protocol.n_coils >= 2

    def test_column_encoding_is_the_other_axis(self):
        card = {**SIDECAR, "InPlanePhaseEncodingDirectionDICOM": "COL"}
        assert Acquisition.from_sidecar(card).phase_axis == 2

    def test_bids_letter_is_the_stored_axis(self):
        card = {"PhaseEncodingDirection": "k-", "Manufacturer": "GE MEDICAL SYSTEMS"}
        protocol = Acquisition.from_sidecar(card)
        assert (protocol.phase_axis, protocol.order) == (2, "centric")

    @pytest.mark.parametrize(
        ("card", "message"),
        [({}, "phase-encode axis"), ({**SIDECAR, "MRAcquisitionType": "2D"}, "3-D")],
    )
    def test_silent_or_foreign_headers_are_refused(self, card, message):
        with pytest.raises(ValueError, match=message):
            Acquisition.from_sidecar(card)


class TestBadInput:
    @pytest.mark.parametrize(
        "options",
        [
            {"order": "spiral"},
            {"partial_fourier": 0.4},
            {"acceleration": 0},
            {"acceleration": 2},
            {"n_coils": 0},
            {"interval": (0.5, 0.5)},
            {"phase_axis": 3},
            {"noise_sd": -1},
        ],
    )
    def test_impossible_protocols_are_refused(self, options):
        with pytest.raises(ValueError, match=next(iter(options)).split("_")[0] + "|axis|Acceler"):
            Acquisition(**options)

    def test_unknown_name_lists_the_known_ones(self):
        with pytest.raises(ValueError, match="siemens_mprage"):
            Acquisition.named("toshiba")

    def test_negative_volume_is_refused(self, phantom):
        with pytest.raises(ValueError, match="negative"):
            scan(phantom - 1, STILL)

    def test_more_segments_than_lines_are_refused(self, phantom):
        with pytest.raises(ValueError, match="do not fit"):
            scan(phantom, sample_segments(40, rng=0))


class TestContinuousMotion:
    def test_runs_through_every_route(self, phantom):
        course = sample_realistic(rng=8, translation_mm=(3, 3), rotation_deg=(3, 3), kind="drift")
        reference = scan(phantom, course)
        for options in ({"interpolation": "linear"}, {"n_coils": 2}, {"phase": True}):
            assert distance(scan(phantom, course, **options), reference) < 0.15

    def test_replaces_nothing_in_the_protocol(self):
        protocol = Acquisition.named("siemens_mprage")
        assert replace(protocol, noise_sd=0.0).acceleration == protocol.acceleration
