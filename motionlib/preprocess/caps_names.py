"""A BIDS scan's name comes in; the names Clinica gives to its t1-linear files go out."""

from __future__ import annotations

import re
from dataclasses import dataclass

SPACE = "space-MNI152NLin2009cSym"
RESOLUTION = "res-1x1x1"
CROPPED = re.compile(
    r"(?P<image>sub-[A-Za-z0-9]+_ses-[A-Za-z0-9]+)_" + SPACE + r"(?P<crop>_desc-Crop)?"
    r"_res-1x1x1_T1w\.nii(\.gz)?"
)


@dataclass(frozen=True)
class CapsNames:
    """Files of one scan, relative to the CAPS folder.

    Attributes
    ----------
    folder : str
        ``subjects/sub-X/ses-Y/t1_linear``.
    cropped, whole, affine : str
        Image on the 169x208x179 grid, image on the template's grid, affine transform.
    """

    folder: str
    cropped: str
    whole: str
    affine: str


def caps_names(participant: str, session: str, *, extra: str = "") -> CapsNames:
    """Name the t1-linear files of one scan as Clinica does.

    Parameters
    ----------
    participant : str
        ``sub-X``.
    session : str
        ``ses-Y``.
    extra : str, default=""
        Further entities that tell scans of one session apart, for instance ``acq-standard``
        (Clinica itself keeps one scan per session).

    Returns
    -------
    CapsNames

    Raises
    ------
    ValueError
        If a name is not made of letters and digits.

    Examples
    --------
    >>> caps_names("sub-01", "ses-M000").cropped
    'subjects/sub-01/ses-M000/t1_linear/sub-01_ses-M000_space-MNI152NLin2009cSym_desc-Crop_res-1x1x1_T1w.nii.gz'
    """
    for name, prefix in ((participant, "sub-"), (session, "ses-")):
        if not re.fullmatch(prefix + "[A-Za-z0-9]+", name):
            raise ValueError(f"{name!r} is no CAPS name; expected {prefix} and letters or digits.")
    folder = f"subjects/{participant}/{session}/t1_linear"
    image = f"{folder}/{participant}_{session}_" + (f"{extra}_" if extra else "") + SPACE
    return CapsNames(
        folder,
        f"{image}_desc-Crop_{RESOLUTION}_T1w.nii.gz",
        f"{image}_{RESOLUTION}_T1w.nii.gz",
        f"{image}_{RESOLUTION}_affine.mat",
    )


def entities_of(scan_id: str, participant_id: str) -> tuple[str, str, str]:
    """Participant, session and further entities of a scan, as CAPS wants them.

    Parameters
    ----------
    scan_id : str
        For instance ``sub-01_ses-2_acq-standard_T1w``; any other id becomes an entity of its own.
    participant_id : str
        Used where the scan's id names no participant.

    Returns
    -------
    participant, session, extra : str
        ``ses-M000`` where the scan's id names no session.
    """
    pairs = dict(part.split("-", 1) for part in scan_id.split("_") if re.match(r"\w+-\w", part))
    clean = {key: re.sub("[^A-Za-z0-9]", "", value) for key, value in pairs.items()}
    own = re.sub("[^A-Za-z0-9]", "", participant_id.removeprefix("sub-"))
    participant = f"sub-{clean.pop('sub', '') or own}"
    session = f"ses-{clean.pop('ses', '') or 'M000'}"
    known = "_".join(f"{key}-{value}" for key, value in clean.items() if value)
    return participant, session, known
