"""Plans of virtual cohorts: which patients come when, and what happens to each scan.

Ages and sexes are those of Table I, images per patient and straight rejects those of §III-A.2. A
plan is a list of dictionaries, one a scan, that holds everything its content depends on.
"""

import numpy as np
import pandas as pd

from motionlib.cohorts.virtual.raters import severity_quantile
from motionlib.cohorts.virtual.scanners import sample_scanner
from motionlib.files import seed_from

STRAIGHT_REJECTS = 1455 / 5500  # §III-A.2
SCANS_PER_PATIENT = 5500 / 4177  # §III-A.2
REJECT_KINDS = {"truncated": 0.5, "slab": 0.15, "not T1w": 0.25, "segmented": 0.1}
RESEARCH = ("virtual-adni", "virtual-msseg", "virtual-bite")
ADNI_VISITS = 1.6  # the paper has 16.3 images a patient, too much alike for a small cohort
# How much of the spread of (normal) severities goes with age and with the patient; ours. Old
# patients move more, and who moved once moves again; the rest is the day's.
AGE_WEIGHT, PATIENT_WEIGHT = 0.3, 0.5
REAL_MOTION_MM = (2.5, 9.0)  # the scans of Fig. A.2 have the worst IPMOTION
# Table I: mean, SD and range of age, share of women
_PEOPLE = {
    "virtual-adni": (74.31, 7.11, 55, 90, 0.4143),
    "virtual-msseg": (45.42, 10.27, 24, 66, 0.7170),
    "virtual-bite": (52.00, 17.70, 31, 76, 0.3571),
    # the printed SD of 7.89 cannot give the printed range 18 to 95; 17 can
    "virtual-warehouse": (55.15, 17.0, 18, 95, 0.5539),
}


def plan_research(counts, seed) -> list[dict]:
    """List the scans of the three research cohorts, as plain dictionaries."""
    items = []
    for cohort, count in zip(RESEARCH, counts, strict=True):
        visits = [2 if cohort == "virtual-bite" else 1] * count
        if cohort == "virtual-adni":
            visits = spread_scans(count, round(ADNI_VISITS * count), seed)
        for number, n_visits in enumerate(visits, start=1):
            base = _patient(cohort, number, seed)
            for visit in range(n_visits):
                items.append(_visit(base, visit) | {"role": "research"})
    return items


def plan_real_motion(count, seed) -> list[dict]:
    """List a moving and a still scan of every patient of the real-motion test."""
    items = []
    for number in range(1, count + 1):
        base = _patient("virtual-adni", number, seed, prefix="VRM")
        # every patient one quantile of the range, so that small tests have the same spread
        share = (number - 0.5) / count
        low, high = np.log(REAL_MOTION_MM)
        for visit, severity in enumerate((float(np.exp(low + share * (high - low))), 0.0)):
            item = _visit(base, visit) | {"role": "real_motion", "growth_mm": 0.0}
            items.append(item | {"severity_mm": severity, "motion_grade": int(severity > 0)})
    return items


def plan_warehouse(count, seed) -> list[dict]:
    """List the scans of the warehouse with their fates."""
    cohort = "virtual-warehouse"
    n_patients = round(count / SCANS_PER_PATIENT)
    items = []
    for number, n_visits in enumerate(spread_scans(n_patients, count, seed), start=1):
        base = _patient(cohort, number, seed)
        rng = np.random.default_rng(seed_from(seed, base["participant_id"], "hospital"))
        first = sample_scanner(rng).hospital
        for visit in range(n_visits):
            stays = visit == 0 or rng.random() < 0.7
            hospital = first if stays else sample_scanner(rng).hospital
            items.append(_visit(base, visit) | {"hospital": hospital})
    assign_fates(items, seed)
    for item in items:
        item["role"] = "excluded" if item["reject"] else "warehouse"
    return items


def spread_scans(n_patients: int, n_scans: int, seed: int) -> list[int]:
    """Spread scans over patients, one each while they last, the surplus at random; counts."""
    counts = np.zeros(n_patients, int)
    counts[: min(n_patients, n_scans)] = 1
    rng = np.random.default_rng(seed_from(seed, "visits", n_patients, n_scans))
    extra = rng.integers(n_patients, size=max(0, n_scans - n_patients))
    np.add.at(counts, extra, 1)
    return counts.tolist()


def assign_fates(items: list[dict], seed: int) -> None:
    """Give every planned scan ``severity_mm`` and ``reject`` (empty: none), in place.

    The rejects are a fixed share and severities the quantiles of `severity_quantile`, so that the
    published proportions hold at every size. Who moves most follows age, patient and chance; a
    patient without an age is as old as the mean.
    """
    rng = np.random.default_rng(seed_from(seed, "fates", len(items)))
    order = rng.permutation(len(items))
    n_rejects = round(STRAIGHT_REJECTS * len(items))
    for index in order[:n_rejects]:
        kind = rng.choice(list(REJECT_KINDS), p=list(REJECT_KINDS.values()))
        items[index] |= {"reject": str(kind), "severity_mm": 0.0}
    graded = [items[index] for index in order[n_rejects:]]
    restless = _restlessness(graded, seed, rng)
    for rank, index in enumerate(np.argsort(restless, kind="stable")):
        share = (rank + 0.5) / len(graded)
        graded[index] |= {"reject": "", "severity_mm": float(severity_quantile(share))}


def _restlessness(items: list[dict], seed: int, rng: np.random.Generator) -> np.ndarray:
    """How much each scan's patient tends to move, standard normal: by age, patient and chance."""
    ages = pd.Series([item["age"] for item in items], dtype=float)
    ages = ((ages - ages.mean()) / ages.std(ddof=0)).fillna(0).to_numpy()
    people = [
        np.random.default_rng(seed_from(seed, item["source_participant_id"], "moves")).normal()
        for item in items
    ]
    chance = np.sqrt(1 - AGE_WEIGHT**2 - PATIENT_WEIGHT**2) * rng.standard_normal(len(items))
    return AGE_WEIGHT * ages + PATIENT_WEIGHT * np.array(people) + chance


def _patient(cohort, number, seed, prefix=None) -> dict:
    """Draw what the plan knows of a patient: identity, age, sex, pathology."""
    prefix = prefix or {"virtual-adni": "VAD", "virtual-msseg": "VMS", "virtual-bite": "VBI"}.get(
        cohort, "VWH"
    )
    participant = f"sub-{prefix}{number:04d}"
    rng = np.random.default_rng(seed_from(seed, participant, "plan"))
    mean, spread, low, high, women = _PEOPLE[cohort]
    age = float(np.clip(rng.normal(mean, spread), low, high))
    person = {"age": round(age, 1), "ventricle": 0.0, "lesions": 0, "enhancing": 0, "tumour": False}
    if cohort == "virtual-adni":
        person["ventricle"] = round(float(rng.gamma(1.5, 0.9)), 2)
    elif cohort == "virtual-msseg":
        person["lesions"] = int(rng.integers(6, 36))
        person["enhancing"] = int(rng.integers(0, 4))
    elif cohort == "virtual-bite":
        person["tumour"] = True
    else:
        kind = rng.choice(4, p=(0.55, 0.2, 0.15, 0.1))  # none, lesions, tumour, atrophy
        person["lesions"] = int(rng.integers(3, 25)) if kind == 1 else 0
        person["tumour"] = bool(kind == 2)
        person["ventricle"] = round(float(rng.gamma(2, 1.2)), 2) if kind == 3 else 0.0
    return {
        "cohort": cohort,
        "participant_id": participant,
        "source_participant_id": participant,
        "age": person["age"],
        "sex": "F" if rng.random() < women else "M",
        "person": person,
        "scanner": int(rng.integers(12)),
        "resected": False,
        "growth_mm": 0.0,
        "hospital": 0,
        "reject": "",
        "severity_mm": 0.0,
    }


def _visit(base: dict, visit: int) -> dict:
    """One visit of a patient: a session, a little more atrophy, or the operation."""
    years = 0.5 * visit
    item = base | {"session": f"ses-{visit + 1:02d}", "age": round(base["age"] + years, 1)}
    if base["cohort"] == "virtual-bite":
        return item | {"resected": visit == 1, "age": base["age"]}
    return item | {"growth_mm": 0.35 * visit if base["cohort"] == "virtual-adni" else 0.0}
