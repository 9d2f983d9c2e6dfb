"""A BIDS sidecar goes in; the fields of an `Acquisition` that it determines come out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from motionlib.files import read_json

ORDER_OF_VENDOR = {"siemens": "linear", "ge": "centric", "philips": "centric"}  # habit, not stated
COILS_PER_ACCELERATION = 2


def acquisition_fields(source: str | os.PathLike | Mapping[str, Any]) -> dict[str, Any]:
    """Read axes, acceleration, reference lines, partial Fourier and oversampling.

    Parameters
    ----------
    source : path-like or mapping
        The JSON file beside a T1-weighted NIfTI, or its content.

    Returns
    -------
    dict
        Keyword arguments of ``Acquisition``.

    Raises
    ------
    ValueError
        If the scan is not 3-D or the phase-encode axis cannot be told.
    """
    card = dict(source) if isinstance(source, Mapping) else read_json(source)
    if str(card.get("MRAcquisitionType", "3D")).upper() != "3D":
        raise ValueError(
            f"MRAcquisitionType is {card['MRAcquisitionType']}; only 3-D scans are known."
        )
    phase_axis = _phase_axis(card)
    acceleration = round(float(card.get("ParallelReductionFactorInPlane", 1)))
    fields: dict[str, Any] = {"phase_axis": phase_axis, "slow_axis": phase_axis}
    vendor = str(card.get("Manufacturer", "")).lower()
    fields["order"] = next(
        (o for v, o in ORDER_OF_VENDOR.items() if vendor.startswith(v)), "linear"
    )
    if acceleration > 1:
        fields["acceleration"] = acceleration
        fields["reference_lines"] = int(card.get("RefLinesPE", 24))
        fields["n_coils"] = COILS_PER_ACCELERATION * acceleration
    partial = float(card.get("PartialFourier", 1))
    if 0.5 < partial < 1:
        fields["partial_fourier"] = partial
    if float(card.get("PhaseOversampling", 0)) > 0:
        fields["oversampling"] = float(card["PhaseOversampling"])
    return fields


def _phase_axis(card: Mapping[str, Any]) -> int:
    """Axis of the in-plane phase encoding: RAS if the orientation is known, else as stored."""
    cosines = card.get("ImageOrientationPatientDICOM")
    direction = card.get("InPlanePhaseEncodingDirectionDICOM")
    if cosines is not None and direction in ("ROW", "COL"):
        cosines = np.asarray(cosines, dtype=np.float64).reshape(2, 3)
        return int(np.argmax(np.abs(cosines[0 if direction == "ROW" else 1])))
    for key in ("PhaseEncodingDirection", "PhaseEncodingAxis"):
        letter = str(card.get(key, ""))[:1]
        if letter in ("i", "j", "k"):
            return "ijk".index(letter)
    raise ValueError(
        "The sidecar does not tell the phase-encode axis (InPlanePhaseEncodingDirectionDICOM with "
        "ImageOrientationPatientDICOM, or PhaseEncodingDirection); set Acquisition(phase_axis=...)."
    )
