"""The published tables, and ours beside them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "beside": ["beside_paper"],
        "reachable": [
            "counts_that_print",
            "exchange_fits",
            "largest_sd",
            "mcnemar_range",
            "mcnemar_reach",
            "smallest_sd",
        ],
        "run_summary": ["RunSummary"],
        "tables": ["build_table", "build_tables", "typeset_tables"],
        "transcription": ["in_text", "printed", "published"],
    },
)
