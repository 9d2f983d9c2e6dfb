"""The parts of a finding go in; one row of the audit comes out."""

from __future__ import annotations

COLUMNS = ["finding", "topic", "where", "printed", "recomputed", "verdict"]


def finding_row(finding, topic: str, where: str, said, recomputed, verdict: str) -> dict:
    """Make one row of the audit, all text.

    Parameters
    ----------
    finding : str
        Number of the finding; ``-`` where the numbers add up.
    topic, where : str
        What is looked at, and the section or table that prints it.
    said, recomputed : object
        The printed value and what the transcribed tables give.
    verdict : str
        What the printed value can or cannot come from.

    Returns
    -------
    dict
        The keys `COLUMNS`.
    """
    values = (finding, topic, where, said, recomputed, verdict)
    return dict(zip(COLUMNS, map(str, values), strict=True))
