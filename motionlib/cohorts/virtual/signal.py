"""T1-weighted signal of the tissues of a head under a sequence (Bloch equations, steady state)."""

from dataclasses import dataclass

import numpy as np

# Rounded textbook values, not taken from the paper: T1 at 1.5 T, T1 at 3 T, proton density,
# T2* at 1.5 T, T2* at 3 T (ms), gadolinium some five minutes after injection (mmol/l).
_PROPERTIES = {
    "air": (1000, 1000, 0.00, 1.0, 1.0, 0.00),
    "csf": (4000, 4200, 1.00, 500, 400, 0.00),
    "grey": (1080, 1400, 0.82, 80, 55, 0.03),
    "white": (650, 850, 0.71, 68, 50, 0.015),
    "bone": (300, 350, 0.20, 0.6, 0.5, 0.00),
    "marrow": (360, 420, 0.62, 14, 9, 0.05),
    "fat": (270, 370, 0.80, 30, 22, 0.02),
    "muscle": (950, 1250, 0.75, 32, 26, 0.12),
    "vessel": (1350, 1650, 0.60, 90, 40, 0.90),
    "dura": (950, 1150, 0.55, 20, 14, 0.55),
    "lesion": (1050, 1400, 0.90, 100, 75, 0.02),
    "oedema": (1250, 1600, 0.92, 110, 80, 0.02),
    "tumour": (1700, 2100, 0.95, 110, 80, 0.02),
    "rim": (1250, 1550, 0.90, 80, 55, 0.45),
}
TISSUES = tuple(_PROPERTIES)
_RELAXIVITY = {1.5: 4.5, 3.0: 4.2}  # of gadolinium, litre / mmol / s


@dataclass(frozen=True)
class Protocol:
    """One three-dimensional T1-weighted sequence on one scanner."""

    name: str
    manufacturer: str
    model: str
    field_strength: float  # 1.5 or 3.0 tesla
    sequence: str  # "spgr" (spoiled gradient echo, steady state) or "mprage" (inversion-prepared)
    tr_ms: float  # repetition time; for MPRAGE the whole inversion cycle
    te_ms: float
    ti_ms: float  # inversion to the centre of the echo train; "spgr" ignores it and the train
    flip_deg: float
    echo_spacing_ms: float = 8.0
    n_echoes: int = 160
    voxel_ratio: tuple[float, float, float] = (1.0, 1.0, 1.0)  # edges R, A, S / cohort's spacing
    order: str = "linear"  # of the phase-encoding steps: "linear", "centric" or "segmented"
    noise_sd: float = 0.03  # of the complex noise, as a fraction of the foreground mean


def tissue_signal(protocol: Protocol, *, gadolinium: float = 0.0, t1_factor=1.0) -> np.ndarray:
    """Signal of every tissue, shape (14,), in the order of `TISSUES`; white matter is 1.

    `gadolinium` is a multiple of the usual dose; `t1_factor`, one or (14,), multiplies T1.
    """
    t1_ms, density, t2s_ms = relaxation(protocol.field_strength, gadolinium=gadolinium)
    t1_ms = t1_ms * t1_factor
    timing = {"tr_ms": protocol.tr_ms, "te_ms": protocol.te_ms, "flip_deg": protocol.flip_deg}
    if protocol.sequence == "spgr":
        signal = spgr_signal(t1_ms, density, t2s_ms, **timing)
    elif protocol.sequence == "mprage":
        timing |= {"ti_ms": protocol.ti_ms, "n_echoes": protocol.n_echoes}
        timing["echo_spacing_ms"] = protocol.echo_spacing_ms
        signal = mprage_signal(t1_ms, density, t2s_ms, **timing)
    else:
        raise ValueError(f"Unknown sequence {protocol.sequence!r}: give 'spgr' or 'mprage'.")
    return signal / signal[TISSUES.index("white")]


def relaxation(
    field_strength: float, *, gadolinium: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T1 in ms, proton density relative to water and T2* in ms of every tissue, each (14,)."""
    if field_strength not in _RELAXIVITY:
        raise ValueError(
            f"Field strength {field_strength} T is not in the tables: give 1.5 or 3.0."
        )
    table = np.array([_PROPERTIES[tissue] for tissue in TISSUES], float)
    at_three = int(field_strength == 3.0)
    t1_ms = table[:, at_three]
    rate = 1.0 / t1_ms + _RELAXIVITY[field_strength] * gadolinium * table[:, 5] / 1000.0
    return 1.0 / rate, table[:, 2], table[:, 3 + at_three]


def spgr_signal(t1_ms, density, t2s_ms, *, tr_ms, te_ms, flip_deg) -> np.ndarray:
    """Steady-state signal of the spoiled gradient echo (the Ernst equation), as `density`."""
    flip = np.deg2rad(flip_deg)
    e1 = np.exp(-tr_ms / t1_ms)
    return density * np.sin(flip) * (1 - e1) / (1 - np.cos(flip) * e1) * np.exp(-te_ms / t2s_ms)


def mprage_signal(
    t1_ms, density, t2s_ms, *, tr_ms, te_ms, ti_ms, flip_deg, echo_spacing_ms, n_echoes
) -> np.ndarray:
    """Magnitude at the centre of an inversion-prepared echo train, in the steady state.

    The longitudinal magnetisation recovers freely before and after the train and with a shortened
    time constant during it; the cycle is closed by solving for the value before the inversion.
    """
    train = n_echoes * echo_spacing_ms
    before, after = ti_ms - train / 2, tr_ms - ti_ms - train / 2
    if before < 0 or after < 0:
        raise ValueError(
            f"An echo train of {train:.0f} ms does not fit around TI {ti_ms} ms in a cycle of "
            f"{tr_ms} ms: use fewer echoes or a longer cycle."
        )
    flip = np.deg2rad(flip_deg)
    # the train of small flips looks like recovery with a shorter T1 towards a lower value
    effective = 1.0 / (1.0 / t1_ms - np.log(np.cos(flip)) / echo_spacing_ms)
    driven = density * effective / t1_ms
    e_before, e_after = np.exp(-before / t1_ms), np.exp(-after / t1_ms)
    e_half = np.exp(-train / 2 / effective)
    # M before inversion = constant + slope * M; both from one pass through the cycle
    entry = density * (1 - e_before)
    constant = density * (1 - e_after) + (driven * (1 - e_half**2) + entry * e_half**2) * e_after
    slope = -e_before * e_half**2 * e_after
    start = entry - e_before * constant / (1 - slope)
    middle = driven * (1 - e_half) + start * e_half
    return np.abs(middle) * np.sin(flip) * np.exp(-te_ms / t2s_ms)


# Sequences of the kind each study used; the numbers are typical of such scanners, not quoted.
ADNI = (
    Protocol(
        "adni-siemens", "Siemens", "Sonata", 1.5, "mprage", 2400, 3.6, 1000, 8,
        voxel_ratio=(1.1, 1.0, 1.0), noise_sd=0.030,
    ),
    Protocol(
        "adni-ge", "GE", "Signa HDx", 1.5, "mprage", 2300, 3.9, 1000, 8,
        voxel_ratio=(1.1, 0.95, 0.95), noise_sd=0.035,
    ),
    Protocol(
        "adni-philips", "Philips", "Intera", 1.5, "mprage", 2300, 4.0, 1000, 8,
        voxel_ratio=(1.1, 0.95, 0.95), order="centric", noise_sd=0.025,
    ),
)  # fmt: skip
MSSEG = (
    Protocol(
        "msseg-ge", "GE", "Discovery 3T", 3.0, "mprage", 1900, 3.0, 900, 11,
        voxel_ratio=(1.0, 0.95, 0.95), order="segmented", noise_sd=0.018,
    ),
    Protocol(
        "msseg-philips", "Philips", "Ingenia 3T", 3.0, "mprage", 2200, 3.5, 950, 8,
        voxel_ratio=(0.95, 1.0, 1.0), order="centric", noise_sd=0.018,
    ),
    Protocol(
        "msseg-aera", "Siemens", "Aera 1.5T", 1.5, "mprage", 1900, 3.4, 1000, 15,
        voxel_ratio=(1.0, 1.05, 1.05), noise_sd=0.028,
    ),
    Protocol(
        "msseg-verio", "Siemens", "Verio 3T", 3.0, "mprage", 1900, 2.3, 900, 9,
        voxel_ratio=(1.0, 1.0, 1.0), noise_sd=0.020,
    ),
)  # fmt: skip
BITE = (
    Protocol(
        "bite-ge", "GE", "Signa EXCITE", 1.5, "spgr", 9, 3.0, 0, 22,
        voxel_ratio=(1.0, 1.0, 1.0), order="segmented", noise_sd=0.028,
    ),
)  # fmt: skip
