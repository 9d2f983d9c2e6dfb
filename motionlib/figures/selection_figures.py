"""A manifest goes in; its demographics as a figure, and example scans of every grade, come out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from motionlib.figures.theme import new_figure, style_of, styled


@styled
def plot_demographics(manifest: pd.DataFrame):
    """Draw the ages of each cohort, one line a cohort, patients counted once.

    Parameters
    ----------
    manifest : DataFrame
        Columns ``cohort age sex source_participant_id``.

    Returns
    -------
    Figure
        Left: distribution of age; right: share of women, with the number of patients.
    """
    people = manifest.drop_duplicates("source_participant_id")
    cohorts = list(people["cohort"].dropna().unique())
    figure, (axes,) = new_figure(9, 3.6, 2)
    for cohort in cohorts:
        ages = people.loc[people["cohort"] == cohort, "age"].dropna().astype(float)
        style = style_of(cohort, cohorts)
        del style["marker"]
        if len(ages):
            steps = np.arange(1, len(ages) + 1) / len(ages)
            axes[0].step(np.sort(ages), steps, where="post", label=cohort, **style)
    axes[0].set(xlabel="age (years)", ylabel="share of patients up to this age")
    axes[0].legend(fontsize=8)
    sex = people.assign(woman=people["sex"] == "F").dropna(subset=["sex"])
    counts = sex.groupby("cohort")["woman"].agg(["mean", "count"]).reindex(cohorts).dropna()
    colours = [style_of(name, cohorts)["color"] for name in counts.index]
    axes[1].barh(counts.index, counts["mean"].astype(float), color=colours)
    for place, row in enumerate(counts.itertuples()):
        axes[1].text(0.02, place, f"n = {int(row.count)}", va="center", color="white", fontsize=8)
    axes[1].set(xlabel="share of women", xlim=(0, 1))
    return figure


def examples(manifest: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Choose one scan of each grade on which both raters agree, where there is one.

    Returns
    -------
    DataFrame
        Rows of the manifest with a column ``label``, in the order of the grades.
    """
    graded = manifest[manifest["motion_grade"].notna() & manifest["role"].isin(["train", "test"])]
    chosen = []
    for grade, words in enumerate(("no motion", "mild motion", "severe motion")):
        scans = graded[graded["motion_grade"] == grade]
        agreed = scans[(scans["rater_1"] == scans["rater_2"]).fillna(False).astype(bool)]
        scans = agreed if len(agreed) else scans
        if len(scans):
            one = scans.sort_values("scan_id").sample(1, random_state=seed)
            chosen.append(one.assign(label=f"mov{grade}: {words}"))
    return pd.concat(chosen, ignore_index=True)
