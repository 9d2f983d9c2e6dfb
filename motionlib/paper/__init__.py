"""The published tables, and ours beside them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "audit_table4": ["exchange_fits", "mcnemar_reach"],
        "beside": ["beside_paper"],
        "reachable": ["counts_that_print", "largest_sd", "mcnemar_range", "smallest_sd"],
        "run_summary": ["Measured"],
        "tables": ["build", "build_all", "typeset_all"],
        "transcription": ["in_text", "printed", "published"],
    },
)
