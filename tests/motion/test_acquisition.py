"""An acquisition of a moving head: special cases, order, gaps, phase and noise."""

import itertools

import numpy as np
import pytest
import torch

from motionlib.cohorts.virtual.heads import bias_field
from motionlib.motion.acquisition import Acquisition, acquire
from motionlib.motion.kspace_based import kspace_motion
from motionlib.motion.sampling import sample_realistic, sample_segments, sample_time_course
from motionlib.motion.trajectory import Trajectory

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
STILL = Trajectory.identity()
PROTOCOLS = {
    "plain": {},
    "centric": {"order": "centric", "noise_sd": 0.02},
    "segmented": {"order": "segmented", "n_segments": 4, "noise_sd": 0.02},
    "partial Fourier": {"partial_fourier": 7 / 8, "phase": True, "noise_sd": 0.02},
    "partition encoding": {"slow_axis": 0, "partial_fourier": 7 / 8, "noise_sd": 0.02},
}


def distance(one, two) -> float:
    """Relative L2 distance from `two`."""
    return float((one - two).double().norm() / two.double().norm())


def step(time, shift=(0.0, 6.0, 0.0)):
    """Head that lies still, jumps at `time`, and lies still again."""
    return Trajectory([0, time], [[0, 0, 0], shift], np.zeros((2, 3)), "hold")


def scan(volume, trajectory, rng=0, **options):
    """Acquire as the keywords say."""
    return acquire(volume, trajectory, Acquisition(**options), affine=AFFINE, rng=rng)


class TestSpecialCases:
    def test_papers_kspace_simulator(self, phantom):
        course = sample_time_course(translation_mm=(4, 6), rotation_deg=(4, 6), rng=3)
        theirs = kspace_motion(phantom, course, affine=AFFINE, axis=1, pad_vox=0)
        assert distance(scan(phantom, course), theirs) < 1e-6

    @pytest.mark.parametrize("options", [{}, {"slow_axis": 0, "partial_fourier": 7 / 8}])
    def test_a_coil_stays_where_it_is(self, options, phantom):
        shape = tuple(phantom.shape[-3:])
        coil = np.linspace(0.5, 1.5, shape[1], dtype=np.float32)[None, :, None] * np.ones(
            shape, np.float32
        )
        elsewhere = Trajectory.constant((0, 9, 0), (0, 0, 4))
        for course in (STILL, elsewhere):
            seen = acquire(phantom, course, Acquisition(), affine=AFFINE, rng=0, sensitivity=coil)
            assert distance(seen, scan(phantom, course) * torch.from_numpy(coil)) < 1e-5
        protocol = Acquisition(**options)
        moved = acquire(phantom, step(0.4), protocol, affine=AFFINE, rng=0, sensitivity=coil)
        under = acquire(phantom * torch.from_numpy(coil), step(0.4), protocol, affine=AFFINE, rng=0)
        assert distance(moved, under) > 0.01

    @pytest.mark.parametrize(
        ("options", "most"), [({}, 0.01), ({"order": "segmented", "n_segments": 6}, 0.1)]
    )
    def test_a_coil_is_nearly_that_of_two_poses_done_exactly(self, options, most, phantom):
        head, protocol = phantom.squeeze(0), Acquisition(**options)
        late = torch.as_tensor(protocol.line_times(head.shape[1]) >= 0.5)

        def exactly(coil):
            """Lines of the head as it lay, and of the head 6 mm on, under a coil that stays."""
            early, moved = (
                torch.fft.fftshift(torch.fft.fft(each * coil, dim=1), dim=1)
                for each in (head, torch.roll(head, 2, 1))
            )
            early[:, late] = moved[:, late]
            return torch.fft.ifft(torch.fft.ifftshift(early, dim=1), dim=1).abs()

        assert distance(scan(head, step(0.5), **options), exactly(1.0)) < 1e-3
        for seed in range(3):
            coil = bias_field(tuple(head.shape), 0.2, np.random.default_rng(seed))
            true = exactly(torch.from_numpy(coil))
            seen = acquire(head, step(0.5), protocol, affine=AFFINE, rng=0, sensitivity=coil)
            artefact = (true - head * torch.from_numpy(coil)).square().sum()
            assert (seen - true).square().sum() < most * artefact

    @pytest.mark.parametrize("options", PROTOCOLS.values(), ids=PROTOCOLS)
    def test_every_protocol_gives_a_head_of_the_same_shape(self, options, phantom):
        before = phantom.clone()
        moved, still = (scan(phantom, course, rng=1, **options) for course in (step(0.6), STILL))
        assert (moved.shape, moved.dtype) == (phantom.shape, torch.float32)
        assert torch.equal(phantom, before)
        assert float(still.min()) >= 0
        assert distance(still, phantom) < 0.2
        assert distance(moved, phantom) > distance(still, phantom)

    def test_same_seed_same_bits(self, phantom):
        one, two, other = (
            scan(phantom, step(0.6), rng=seed, noise_sd=0.05, phase=True) for seed in (4, 4, 5)
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
    @pytest.mark.parametrize("options", PROTOCOLS.values(), ids=PROTOCOLS)
    def test_every_acquired_line_is_taken_once(self, options, n):
        protocol = Acquisition(**options)
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

    def test_step_after_the_last_line_changes_nothing(self, phantom):
        assert torch.equal(scan(phantom, step(1.0)), scan(phantom, STILL))


@pytest.fixture
def cube():
    """A bright cube in air, (28, 28, 28)."""
    cube = torch.zeros(28, 28, 28)
    cube[10:18, 10:18, 10:18] = 1
    return cube


class TestGhosts:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_run_along_the_slow_axis_and_no_other(self, axis, cube):
        shift = 6.0 * np.eye(3)[axis]
        course = Trajectory([0, 0.4, 0.6], [0 * shift, shift, -shift], np.zeros((3, 3)), "hold")
        change = (scan(cube, course, phase_axis=axis) - cube).abs().amax(dim=axis)
        shadow = cube.amax(dim=axis).bool()
        assert float(change[shadow].min()) > 0.1
        assert float(change[~shadow].max()) < 2e-3

    def test_slow_loop_decides_not_the_phase_encoding(self, cube):
        course = Trajectory([0, 0.55], [[0, 0, 0], [6, 0, 0]], np.zeros((2, 3)), "hold")
        change = (scan(cube, course, phase_axis=1, slow_axis=0) - cube).abs()
        assert float(change.amax(dim=0)[~cube.amax(dim=0).bool()].max()) < 2e-3
        assert float(change.amax(dim=1)[~cube.amax(dim=1).bool()].max()) > 0.05


class TestPartialFourier:
    @pytest.mark.parametrize("slow_axis", [1, 2])
    def test_blurs_along_the_phase_axis_only(self, slow_axis, cube):
        short = scan(cube, STILL, partial_fourier=0.7, slow_axis=slow_axis)
        change = (short - cube).abs().amax(dim=1)
        shadow = cube.amax(dim=1).bool()
        assert float(change[shadow].min()) > 0.05
        assert float(change[~shadow].max()) < 2e-3

    def test_is_what_makes_phase_matter(self, phantom):
        assert distance(scan(phantom, STILL, phase=True), phantom) < 3e-4
        without, with_phase = (
            scan(phantom, STILL, phase=p, partial_fourier=0.7) for p in (False, True)
        )
        assert distance(with_phase, without) > 0.01


class TestNoise:
    @pytest.mark.parametrize("options", [{}, {"order": "centric"}, {"slow_axis": 0}])
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


class TestContinuousMotion:
    def test_the_order_decides_what_a_drift_does(self, phantom):
        course = sample_realistic(rng=8, translation_mm=(3, 3), rotation_deg=(3, 3), kind="drift")
        scans = [
            scan(phantom, course, **options)
            for options in ({}, {"order": "centric"}, {"order": "segmented", "n_segments": 4})
        ]
        assert all(distance(one, other) > 0.05 for one, other in itertools.combinations(scans, 2))

    def test_the_phase_moves_with_the_head_and_leaves_the_magnitude(self, phantom):
        course = sample_realistic(rng=8, translation_mm=(3, 3), rotation_deg=(3, 3), kind="drift")
        assert distance(scan(phantom, course, phase=True), scan(phantom, course)) < 0.15


class TestBadInput:
    @pytest.mark.parametrize(
        "options",
        [
            {"order": "spiral"},
            {"partial_fourier": 0.4},
            {"n_segments": 0},
            {"phase_axis": 3},
            {"noise_sd": -1},
        ],
    )
    def test_impossible_protocols_are_refused(self, options):
        with pytest.raises(ValueError, match=next(iter(options)).split("_")[0] + "|axis"):
            Acquisition(**options)

    def test_negative_volume_is_refused(self, phantom):
        with pytest.raises(ValueError, match="negative"):
            scan(phantom - 1, STILL)

    def test_more_segments_than_lines_are_refused(self, phantom):
        with pytest.raises(ValueError, match="do not fit"):
            scan(phantom, sample_segments(40, rng=0))
