"""The figures of the study."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cohort": ["show_slices"],
        "comparisons": [
            "plot_controls",
            "plot_learning_curve",
            "plot_mcnemar_range",
            "plot_scoreboard",
        ],
        "diagrams": ["plot_flow"],
        "motion": [
            "as_tensor",
            "compare_choices",
            "plot_severities",
            "plot_simulators",
            "single_step_error",
            "time_simulators",
        ],
        "results": ["plot_calibration", "plot_confusion", "plot_roc"],
        "selection_figures": ["examples", "plot_demographics"],
        "trainingfigures": ["plot_cost", "plot_training"],
        "trustfigures": ["plot_coverage_risk"],
    },
)
