"""What the notebooks ask for: cohorts, copies, trainings, checks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "budget": ["Budget"],
        "checks": ["coin_lesson"],
        "cohort": ["example_volumes", "grid_of", "manifest_of", "research_rows"],
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
        "heldcohorts": ["prepare_cohort"],
        "missed": ["called_motion"],
        "occlusion": ["mistakes", "occlude"],
        "pretraining": [
            "accuracy_by_model",
            "controls",
            "each_volume",
            "forest_inputs",
            "learning_curves",
            "pretrain",
            "pretrained",
        ],
        "trust": [
            "before_and_after",
            "by_site",
            "compare_calibrators",
            "other_shares",
            "promised_coverage",
            "risk_curve",
            "validation_scores",
        ],
    },
)
