"""Paired tests, intervals, agreement of raters, calibration."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "agreement": ["judge_raters", "weighted_kappa"],
        "calibration": ["best_threshold"],
        "intervals": ["bootstrap_ci", "bootstrap_difference"],
        "paired": [
            "auc_difference_p",
            "delong",
            "mcnemar",
            "mcnemar_by_class",
            "mcnemar_by_patient",
            "scans_needed",
        ],
        "rates": ["controls_table", "kept_intervals"],
    },
)
