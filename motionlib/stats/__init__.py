"""Paired tests, intervals, agreement of raters, calibration."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "agreement": ["raters_against_consensus", "raters_against_others", "weighted_kappa"],
        "calibration": ["best_threshold"],
        "controls": ["controls_table"],
        "interval_coverage": ["StudyDesign", "coverage", "study_of"],
        "intervals": ["bootstrap_ci", "bootstrap_difference"],
        "paired": ["delong", "mcnemar", "mcnemar_by_class"],
        "power": ["auc_difference_p", "scans_needed"],
    },
)
