"""What the notebooks ask for: cohorts, copies, trainings, checks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checks": ["called_motion", "coin_lesson", "mistakes", "occlude"],
        "cohort": ["example_volumes", "grid_of", "manifest_of", "prepare_cohort", "research_rows"],
        "copies": ["synthetic_set"],
        "fine_tuning": [
            "FREEZE",
            "annotators",
            "compare_ways",
            "free_weights",
            "freeze_study",
            "label_curve",
            "research_only",
            "validation_losses",
        ],
        "pretraining": [
            "accuracy_by_model",
            "controls",
            "each_volume",
            "forest_inputs",
            "learning_curves",
            "pretrain",
            "pretrained",
        ],
        "simulators": ["compare_choices", "single_step_error", "time_simulators"],
        "trainings": ["Budget"],
        "trust": [
            "before_and_after",
            "compare_calibrators",
            "promised_coverage",
            "risk_curve",
            "validation_scores",
        ],
    },
)
