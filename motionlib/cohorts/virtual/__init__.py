"""A virtual hospital: heads made from MNI maps, scanners, graded motion."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"cohort": ["make_cohort"], "warehouse": ["make_warehouse"]}
)
