"""MRQy's image quality metrics and the random forest on them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "forest": [
            "cross_validated",
            "importance",
            "judge_set",
            "search_forest",
            "warehouse_rows",
        ],
        "measures": ["MEASURES", "measure"],
        "mr_art": [
            "among_told",
            "both_tasks",
            "first_seed",
            "judge",
            "repeat_models",
            "single_measures",
            "summarise",
        ],
        "robustness": ["fragility", "move", "noisy_template"],
        "sites": [
            "Recipe",
            "auc_by_mark",
            "choose_by_site",
            "choose_recipe",
            "compare_recipes",
            "judge_transfer",
            "site_auc",
            "transfer",
            "transfer_thresholds",
            "waist",
        ],
        "tables": ["PAPER_MEASURES", "add_measures", "image_quality"],
    },
)
