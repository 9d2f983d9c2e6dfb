"""Scanners of 39 hospitals, and of studies with a strict protocol: sequence and weaknesses.

Source: paper §III-A.2 for the vendors and the 39 hospitals. The rest is ours: "no homogenisation on
the acquisition parameters" is rendered by wide ranges of sequence timing, field strength, voxel
shape, smoothing, noise, bias field, contrast agent, and reformats in place of the acquired planes.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from motionlib.cohorts.virtual.signal import Protocol
from motionlib.files import seed_from

# Images per vendor in the warehouse, §III-A.2; hospitals per vendor are ours, 39 in all.
VENDOR_IMAGES = {"Siemens": 3752, "GE": 1710, "Philips": 33, "Toshiba": 5}
VENDOR_HOSPITALS = {"Siemens": 24, "GE": 12, "Philips": 2, "Toshiba": 1}
GADOLINIUM_SHARE = 0.4  # not stated in the paper
NOISE_SD = 0.065  # of a voxel whose three edges are the finest one; 0.043 in the median scan
REFORMAT_SHARE = 0.5  # not stated in the paper; see `reformat`
_MPRAGE_SHARE = {"Siemens": 0.75, "GE": 0.55, "Philips": 0.5, "Toshiba": 0.1}
_ORDERS = {
    "Siemens": ("linear", "linear", "linear", "linear"),
    "GE": ("linear", "linear", "segmented", "centric"),
    "Philips": ("linear", "centric", "segmented", "centric"),
    "Toshiba": ("linear", "linear", "linear", "linear"),
}
_AXES = ((1, 1), (1, 0), (0, 0), (0, 2))  # sagittal, its partitions, axial, its partitions
_MODELS = {
    ("Siemens", 1.5): ("Avanto", "Aera", "Symphony"),
    ("Siemens", 3.0): ("Skyra", "Verio", "Trio"),
    ("GE", 1.5): ("Signa HDxt", "Optima MR450w"),
    ("GE", 3.0): ("Discovery MR750", "Signa PET/MR"),
    ("Philips", 1.5): ("Achieva",),
    ("Philips", 3.0): ("Ingenia",),
    ("Toshiba", 1.5): ("Vantage",),
    ("Toshiba", 3.0): ("Titan",),
}


@dataclass(frozen=True)
class Scanner:
    """One scanner on one day."""

    hospital: int  # 1 to 39; 0 is no hospital of the warehouse
    protocol: Protocol
    phase_axis: int  # array axis of phase encoding
    slow_axis: int  # array axis of the outer loop, along which motion acts
    order: str  # of the phase-encoding steps: "linear", "centric" or "segmented"
    partial_fourier: float  # share of the phase-encoding steps acquired
    blur_mm: float  # width (FWHM) of the reconstruction's smoothing, at a spacing of 3 mm
    bias: float  # strength of the coil's bias field
    noise_sd: float  # complex noise before the magnitude, as a fraction of the foreground mean
    gadolinium: float  # dose as a multiple of the usual one, 0 without contrast agent
    # tilt about R, A and S of the reformat that is archived; zeros: the acquired planes are
    tilt_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def facts(self) -> dict:
        """Tell what a row of the manifest and of ``truth.tsv`` says."""
        return {
            "manufacturer": self.protocol.manufacturer,
            "field_strength": self.protocol.field_strength,
            "contrast_agent": int(self.gadolinium > 0),
            "hospital": self.hospital,
            "model": self.protocol.model,
            "sequence": self.protocol.sequence,
            "order": self.order,
            "phase_axis": self.phase_axis,
            "blur_mm": round(self.blur_mm, 3),
            "bias": round(self.bias, 3),
            "noise_sd": round(self.noise_sd, 4),
            "tilt_deg": round(float(np.rad2deg(_turn(self.tilt_deg).magnitude())), 2),
        }


@lru_cache(maxsize=1)
def hospitals() -> tuple[tuple[str, float, float], ...]:
    """Vendor, size and usual quality of the 39 hospitals.

    Sizes are relative within a vendor; quality is normal with mean 0 (negative: worse).
    """
    rng = np.random.default_rng(seed_from("motionlib hospitals"))
    rows = []
    for vendor, count in VENDOR_HOSPITALS.items():
        sizes = rng.gamma(1.5, 1.0, count) + 0.2
        rows += [(vendor, float(s / sizes.sum()), float(rng.normal())) for s in sizes]
    return tuple(rows)


def sample_scanner(rng: np.random.Generator, *, hospital: int | None = None) -> Scanner:
    """Draw a scanner of the warehouse, of a `hospital`, 1 to 39, or by the vendors' shares."""
    table = hospitals()
    if hospital is None:
        shares = np.array([VENDOR_IMAGES[vendor] * size for vendor, size, _ in table])
        hospital = int(rng.choice(len(table), p=shares / shares.sum())) + 1
    if not 1 <= hospital <= len(table):
        raise ValueError(f"Hospital {hospital} does not exist: give 1 to {len(table)}.")
    vendor, _, usual_quality = table[hospital - 1]
    field_strength = float(rng.choice([1.5, 3.0], p=[0.6, 0.4]))
    protocol = _routine_protocol(rng, vendor, field_strength)
    quality = 0.6 * usual_quality + 0.8 * rng.normal()
    phase_axis, slow_axis = _AXES[rng.choice(len(_AXES), p=(0.55, 0.15, 0.15, 0.15))]
    order = _ORDERS[vendor][rng.integers(4)]
    gadolinium = rng.uniform(0.7, 1.3) if rng.random() < GADOLINIUM_SHARE else 0.0
    usual_noise = NOISE_SD * np.exp(-0.35 * quality + rng.normal(0, 0.5))
    tilt_deg = rng.normal((12.0, 0.0, 0.0), (7.0, 4.0, 4.0)) * (rng.random() < REFORMAT_SHARE)
    # keyword arguments are drawn from top to bottom: their order decides every warehouse
    return Scanner(
        hospital=hospital,
        protocol=protocol,
        phase_axis=phase_axis,
        slow_axis=slow_axis,
        order=order,
        partial_fourier=float(rng.choice([1.0, 0.875, 0.75], p=[0.6, 0.25, 0.15])),
        blur_mm=float(np.clip(3.4 - 1.1 * quality + rng.normal(0, 1.3), 0.0, 7.0)),
        bias=float(min(0.4, np.exp(rng.normal(np.log(0.2), 0.4)))),
        # the smaller the voxel, the fewer protons in it
        noise_sd=float(np.clip(usual_noise / np.prod(protocol.voxel_ratio), 0.008, 0.2)),
        gadolinium=float(gadolinium),
        tilt_deg=tuple(tilt_deg.tolist()),
    )


def research_scanner(
    protocol: Protocol, rng: np.random.Generator, *, gadolinium: float = 0.0
) -> Scanner:
    """Draw the scanner of a strict study: sharp, sagittal, nearly the same from scan to scan."""
    return Scanner(
        hospital=0,
        protocol=protocol,
        phase_axis=1,
        slow_axis=1,
        order=protocol.order,
        partial_fourier=1.0,
        blur_mm=0.0,
        bias=float(rng.uniform(0.06, 0.16)),
        noise_sd=protocol.noise_sd * float(rng.uniform(0.75, 1.25)),
        gadolinium=float(gadolinium),
    )


def _routine_protocol(rng, vendor, field_strength) -> Protocol:
    """Sequence of a clinical routine scan: wide ranges around the usual."""
    model = str(rng.choice(_MODELS[vendor, field_strength]))
    thick = float(rng.choice([1.0, 1.2, 1.5, 2.0], p=[0.45, 0.25, 0.2, 0.1]))
    ratio = [float(rng.uniform(0.95, 1.15))] * 3
    ratio[int(rng.choice(3, p=[0.45, 0.1, 0.45]))] *= thick
    spgr = Protocol(
        f"{vendor.lower()}-routine",
        vendor,
        model,
        field_strength,
        "spgr",
        tr_ms=float(rng.uniform(7, 26)),
        te_ms=float(rng.uniform(2.2, 6.0)),
        ti_ms=0.0,
        flip_deg=float(rng.uniform(14, 32)),
        voxel_ratio=tuple(ratio),
    )
    if rng.random() >= _MPRAGE_SHARE[vendor]:
        return spgr
    return replace(
        spgr,
        sequence="mprage",
        tr_ms=float(rng.uniform(1700, 2500)),
        ti_ms=float(rng.uniform(800, 1100)),
        flip_deg=float(rng.uniform(7, 15)),
        te_ms=float(rng.uniform(2.2, 4.5)),
        n_echoes=128,
    )


def reformat(volume: np.ndarray, affine: np.ndarray, tilt_deg) -> tuple[np.ndarray, np.ndarray]:
    """Cut a scan (I, J, K) anew along tilted planes, as consoles do for reading.

    `tilt_deg` turns the planes about R, A and S; all zero gives the scan back. The new voxels have
    the same size about the same centre, interpolated linearly, zero outside; the affine returned
    keeps the head where it is in the scanner.
    Source: ours. Routine scans are often read, and archived, in other planes than the acquired
    ones; interpolation then is no sign of motion. The tilt is drawn at random (`sample_scanner`)
    and does not follow the head's own pose, as a technician's would.
    """
    if not np.any(tilt_deg):
        return volume, affine
    turned = _turn(tilt_deg).as_matrix() @ affine[:3, :3]
    step = np.linalg.solve(affine[:3, :3], turned)  # from new voxels to old ones
    centre = (np.array(volume.shape) - 1) / 2
    offset = centre - step @ centre
    moved = affine.copy()
    moved[:3, :3] = turned
    moved[:3, 3] += affine[:3, :3] @ offset
    new = ndimage.affine_transform(volume, step, offset=offset, order=1, output=np.float32)
    return new, moved


def _turn(tilt_deg) -> Rotation:
    """Rotation about R, then A, then S."""
    return Rotation.from_euler("xyz", tilt_deg, degrees=True)
