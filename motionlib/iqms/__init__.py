"""MRQy's image quality metrics and the random forest on them; the spread of the air."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "air": ["DIRECTIONS", "air_by_direction", "air_spread"],
        "forest": [
            "cross_validated",
            "importance",
            "judge_rows",
            "judge_set",
            "search_forest",
            "warehouse_rows",
        ],
        "measures": ["MEASURES", "measure"],
        "mr_art": ["first_seed", "judge_mr_art", "predict_mr_art"],
        "robustness": ["fragility", "move", "noisy_template"],
        "sites": [
            "judge_sites",
            "leave_one_site_out",
            "prediction_rows",
            "transfer",
            "transfer_thresholds",
        ],
        "tables": ["PAPER_MEASURES", "add_measures", "image_quality"],
    },
)
