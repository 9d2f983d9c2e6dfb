"""Scoring of scans with a model, fine-tuning on own grades, the shipped model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "own_grades": ["fine_tune_own"],
        "real_motion": [
            "ABSENT",
            "against_others",
            "forest_rows",
            "judge_votes",
            "measure_air",
            "rated_scans",
            "rater_agreement",
            "vote_networks",
            "vote_rows",
        ],
        "score": ["score_scans"],
    },
)
