"""The paper's claims as a run bears them out: sentences written from its tables by rule.

A difference is *shown* where its 95 % interval, by drawing patients, lies above zero; else the
sentence says that it is not.  The report and the README print the same sentences.
"""

import pandas as pd

RECIPES = {  # how a fine-tuned and a research-only network are called in Table IV
    "the recommended recipe": ("fine_tuned_recommended", "research_only_recommended"),
    "the paper's recipe": ("fine_tuned", "research_only"),
}
SEVERE, MILD = "mov01vs2", "mov0vs1"
FOREST = "forest_clinical"


def claims(table_4: pd.DataFrame, mcnemar: pd.DataFrame) -> list[str]:
    """Say what a run shows of the paper's three claims about a warehouse.

    Parameters
    ----------
    table_4, mcnemar : DataFrame
        Of `tables.build_tables`, or read from their files.

    Returns
    -------
    list of str
        A sentence on research-only networks, one a recipe on fine-tuning, one on the forest, one on
        mild motion; those for which the run has no numbers are left out.

    Notes
    -----
    Source: paper §IV-B, Table IV. Balanced accuracies in percent, differences in points.
    """
    rows = table_4.set_index(["task", "method"])
    sentences = [_research_only(rows)]
    sentences += [_fine_tuning(rows, mcnemar, recipe) for recipe in RECIPES]
    sentences += [_forest(rows, mcnemar), _mild(rows)]
    return [sentence for sentence in sentences if sentence]


def _research_only(rows: pd.DataFrame) -> str:
    """Say how far research-only networks come on severe motion."""
    values = {recipe: _accuracy(rows, SEVERE, method) for recipe, (_, method) in RECIPES.items()}
    parts = [f"{value} by {recipe}" for recipe, value in values.items() if value]
    if not parts:
        return ""
    row = rows.loc[SEVERE, RECIPES["the paper's recipe"][1]]
    published = f"; the paper prints {100 * row['balanced_accuracy_paper']:.1f} %"
    return (
        "Severe motion, no graded scan used: a network trained on research scans alone has a "
        f"balanced accuracy of {' and '.join(parts)}{published} ({_counts(row)})."
    )


def _fine_tuning(rows: pd.DataFrame, mcnemar: pd.DataFrame, recipe: str) -> str:
    """Say what fine-tuning gains on severe motion, paired by patient."""
    tuned, untuned = RECIPES[recipe]
    value = _accuracy(rows, SEVERE, tuned)
    rivals = {untuned: "no fine-tuning", "from_scratch": "from scratch"}
    gains = {words: _gain(mcnemar, tuned, rival) for rival, words in rivals.items()}
    gains = [f"{gain} over {words}" for words, gain in gains.items() if gain]
    if not value or not gains:
        return ""
    return f"Fine-tuned, by {recipe}, it has {value}: {', '.join(gains)}."


def _forest(rows: pd.DataFrame, mcnemar: pd.DataFrame) -> str:
    """Say how a forest on the same graded scans stands beside the fine-tuned network."""
    for tuned, _ in RECIPES.values():
        value = _accuracy(rows, SEVERE, FOREST)
        gain = _gain(mcnemar, tuned, FOREST)
        ranking = _gain(mcnemar, tuned, FOREST, metric="auc", unit="")
        if value and gain and ranking:
            names = [rows.loc[(SEVERE, name), "auc_ours"] for name in (FOREST, tuned)]
            return (
                f"A forest on image-quality metrics of the same graded scans has {value}, {gain} "
                f"for the fine-tuned network over it; its AUC is {names[0]:.2f} where the network "
                f"has {names[1]:.2f}, a difference of {ranking}."
            )
    return ""


def _mild(rows: pd.DataFrame) -> str:
    """Say whether mild motion is harder than severe motion."""
    for method, _ in RECIPES.values():
        severe, mild = (_accuracy(rows, task, method) for task in (SEVERE, MILD))
        if severe and mild:
            easier, harder = rows.loc[SEVERE, method], rows.loc[MILD, method]
            part = harder["balanced_accuracy_high"] < easier["balanced_accuracy_low"]
            verdict = "shown, the intervals part" if part else "not shown, the intervals overlap"
            return f"Mild motion is harder: {mild} against {severe} for severe motion ({verdict})."
    return ""


def _accuracy(rows: pd.DataFrame, task: str, method: str) -> str:
    """Write a balanced accuracy with its interval, in percent; empty where there is none."""
    if (task, method) not in rows.index:
        return ""
    ends = [
        100 * rows.loc[(task, method), f"balanced_accuracy_{p}"] for p in ("ours", "low", "high")
    ]
    if pd.isna(ends).any():
        return ""
    return "{:.1f} % [{:.1f}, {:.1f}]".format(*ends)


def _gain(
    mcnemar: pd.DataFrame, first: str, second: str, *, metric: str = "ba", unit: str = " points"
) -> str:
    """Write a paired difference on severe motion, and its verdict; empty where there is none."""
    names = [f"{metric}_difference{part}" for part in ("", "_low", "_high")]
    if not set(names) <= set(mcnemar):
        return ""
    pair = mcnemar[
        (mcnemar["task"] == SEVERE) & (mcnemar["first"] == first) & (mcnemar["second"] == second)
    ]
    if pair.empty or pair[names].isna().any(axis=None):
        return ""
    middle, low, high = pair[names].iloc[0]
    verdict = "shown" if low > 0 else "the opposite is shown" if high < 0 else "not shown"
    numbers = [f"{100 * v:+.1f}" if metric == "ba" else f"{v:+.2f}" for v in (middle, low, high)]
    return f"{numbers[0]}{unit} [{numbers[1]}, {numbers[2]}] ({verdict})"


def _counts(row: pd.Series) -> str:
    """Name the scans, patients and positives behind a row, as far as it has them."""
    names = {"n": "scans", "n_patients": "patients", "n_positive": "scans with severe motion"}
    return ", ".join(
        f"{row[name]:.0f} {words}" for name, words in names.items() if pd.notna(row.get(name))
    )
