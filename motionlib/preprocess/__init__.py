"""From a NIfTI file to a volume on the study grid: reading, heads, grids, t1-linear."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"images": ["load_volume", "save_volume", "zscore"], "linear": ["t1_linear"]},
)
