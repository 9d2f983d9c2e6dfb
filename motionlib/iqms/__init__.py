"""MRQy's image quality metrics and the random forest on them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "forest": ["cross_validated", "importance", "judge_set", "warehouse_rows"],
        "forestsearch": ["search_forest"],
        "measures": ["measure"],
        "mr_art": [
            "among_told",
            "both_tasks",
            "first_seed",
            "judge",
            "repeat_models",
            "single_measures",
            "summarise",
        ],
        "robustness": [
            "fragility",
            "move",
            "noisy_template",
            "plot_fragility",
            "plot_importance",
            "show_foreground",
        ],
        "sites": ["Recipe", "choose_by_site", "choose_recipe", "compare_recipes", "site_auc"],
        "sitetransfer": [
            "auc_by_mark",
            "judge_transfer",
            "transfer",
            "transfer_thresholds",
            "waist",
        ],
        "slicemeasures": ["MEASURES"],
        "tables": ["PAPER_MEASURES", "add_measures", "image_quality"],
    },
)
