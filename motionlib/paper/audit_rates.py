"""The transcribed tables go in; findings on rates, their spread and denominators come out."""

from __future__ import annotations

import numpy as np

from motionlib.paper.audit_table4 import rate_fits, set_sizes, table4_rates
from motionlib.paper.findings import finding_row
from motionlib.paper.reachable import (
    counts_that_print,
    largest_sd,
    smallest_denominator,
    smallest_sd,
)
from motionlib.paper.transcription import printed

SLACK = 1e-9
LABELS = {"table_2": "Table II", "table_3": "Table III", "table_4": "Table IV"}
LABELS["table_a3"] = "Table A.III"


def _severity(row: dict) -> str:
    """Name a row of Table II."""
    return f"{row['simulation']} [{row['rotation_min_deg']}, {row['rotation_max_deg']}]"


def balanced_accuracies() -> list[dict]:
    """Balanced accuracy against the mean of its two rates (findings 6 and 8)."""
    rows, triples = [], set()
    for name in ("table_2", "table_3", "table_4", "table_a3"):
        for row in printed(name).to_dict("records"):
            triple = tuple(row[key] for key in ("ba", "specificity", "sensitivity"))
            if not np.isfinite(triple).all():
                continue
            triples.add(triple)
            gap = (triple[1] + triple[2]) / 2 - triple[0]
            if abs(gap) < 0.0075 + SLACK:
                continue
            label = row.get("method") or row.get("architecture") or ""
            if "simulation" in row:
                label = (
                    f"{row['simulation']} [{row['rotation_min_deg']}, {row['rotation_max_deg']}]"
                )
            where = f"{LABELS[name]}, {label} {row.get('task', '')}".rstrip()
            verdict = "differs by a last digit; fits if the rates were rounded before printing"
            if abs(gap) > 0.01 + SLACK:
                verdict = f"{triple[0]} cannot come from the two printed rates (off by {gap:+.3f})"
            finding = "6" if "0vs1" in where else "8"
            found = f"({triple[1]} + {triple[2]}) / 2 = {(triple[1] + triple[2]) / 2:.3f}"
            rows.append(
                finding_row(finding, "BA = mean of the rates", where, triple[0], found, verdict)
            )
    gaps = [abs((t[1] + t[2]) / 2 - t[0]) for t in triples]
    good = sum(gap <= 0.01 + SLACK for gap in gaps)
    found = f"{good} of {len(triples)} distinct triples agree within 0.01"
    where = "Tables II, III, IV, A.III"
    rows.insert(
        0, finding_row("-", "BA = mean of the rates", where, "all rows", found, "adds up, but")
    )
    return [*rows, _misprint()]


def _misprint() -> dict:
    """Show which number of the research-only mild row could be the odd one."""
    row = table4_rates().loc[("mov0vs1", "research_only")]
    needed = round(2 * row["ba"] - row["sensitivity"], 2)
    fits = rate_fits(needed, *set_sizes()["mov0vs1"])["exchanged"]
    pooled = rate_fits(row["specificity"], *set_sizes()["mov0vs1"])["pooled_exchanged"]
    found = f"BA needs {needed} = {fits}; {row['specificity']} = {pooled}, five models pooled"
    verdict = "one of the two cannot come from the other; which one is left open"
    where = "Table IV, research-only mov0vs1"
    return finding_row("6", "which one is misprinted", where, row["specificity"], found, verdict)


def standard_deviations() -> list[dict]:
    """SDs that are no percentage points and no fractions (finding 9)."""
    rows = []
    step = 100 / printed("table_a1").query("set == 'validation'")["total"].max()
    for name, kind in (("table_2", "simulation"), ("table_3", "architecture")):
        for row in printed(name).to_dict("records"):
            for metric in ("specificity", "sensitivity"):
                mean, sd = row[metric], row[f"{metric}_sd"]
                if not 0 < sd < 0.5:
                    continue
                most, least = largest_sd(mean), smallest_sd(step)
                label = row[kind]
                if kind == "simulation":
                    label = _severity(row)
                found = (
                    f"as points the least for steps of {step:.2f} is {least:.2f}; as a fraction it "
                    f"is {100 * sd:.0f} points, the most for five values <= 100 is {most:.2f}"
                )
                where = f"{LABELS[name]}, {label}, {metric}"
                verdict, said = _sd_verdict(sd, least, most), f"{mean} ± {sd}"
                rows.append(finding_row("9", "standard deviation", where, said, found, verdict))
    return rows


def _sd_verdict(sd: float, least: float, most: float) -> str:
    """Say which readings of an SD are excluded."""
    as_points, as_fraction = sd >= least, 100 * sd <= most
    if not as_points and not as_fraction:
        return "cannot come from five folds of this size, in points or as a fraction"
    return "fits as a fraction only" if as_fraction else "fits as points only"


def denominators() -> list[dict]:
    """Percentages that no count out of 90 or 92 prints (finding 10)."""
    rows = []
    wanted = {
        "table_2": ["specificity", "sensitivity", "real_motion_accuracy"],
        "table_3": ["specificity", "sensitivity"],
        "table_a3": ["specificity", "sensitivity"],
    }
    seen = {}
    for name, columns in wanted.items():
        table = printed(name)
        for column in columns:
            for value in table.loc[table[column] < 100, column]:
                seen.setdefault(float(value), []).append(f"{LABELS[name]} {column}")
    for value, where in sorted(seen.items()):
        sizes = (90, 92, 450, 460)
        fits = [f"{k}/{n} ({how})" for n in sizes for k, how in counts_that_print(value, n).items()]
        k, n = smallest_denominator(value)
        found = f"{', '.join(fits) or 'no k/90, k/92, k/450, k/460'}; smallest {k}/{n}"
        verdict = "can come from these set sizes" if fits else "cannot come from sets of 90 or 92"
        rows.append(
            finding_row("10", "denominator", "; ".join(sorted(set(where))), value, found, verdict)
        )
    return rows
