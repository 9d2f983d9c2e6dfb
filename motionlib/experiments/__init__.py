"""What the notebooks ask for: cohorts, copies, trainings, checks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checks": [
            "by_kind_of_scan",
            "coin_lesson",
            "learnt_age",
            "mistakes",
            "occlude",
            "positive_rate_by_severity",
        ],
        "cohort": ["Cohort", "open_cohort", "prepare_cohort"],
        "copies": ["synthetic_set"],
        "fine_tuning": [
            "FREEZE",
            "annotators",
            "chosen_depth",
            "compare_starts",
            "fewer_patients",
            "free_weights",
            "freeze_study",
            "research_only",
            "validation_losses",
        ],
        "pooled_head": ["pooled_heads"],
        "pretraining": [
            "RECOMMENDED",
            "accuracy_by_model",
            "controls",
            "forest_inputs",
            "learning_curves",
            "pretrain",
            "pretrained",
        ],
        "simulators": ["compare_choices", "single_step_error", "time_simulators"],
        "trainings": ["Budget"],
        "calibration": [
            "before_and_after",
            "compare_calibrators",
            "promised_coverage",
            "risk_curve",
            "validation_scores",
        ],
    },
)
