"""The figures of the study."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cohort": ["examples", "plot_demographics", "plot_flow", "show_air", "show_slices"],
        "iqms": ["plot_fragility", "plot_importance", "show_foreground"],
        "motion": ["plot_severities", "plot_simulators"],
        "results": [
            "plot_calibration",
            "plot_confusion",
            "plot_controls",
            "plot_cost",
            "plot_coverage_risk",
            "plot_learning_curve",
            "plot_mcnemar_range",
            "plot_roc",
            "plot_scoreboard",
            "plot_training",
        ],
    },
)
