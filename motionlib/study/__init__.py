"""Runs of the study: parameters, notebooks by papermill, report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"run": ["Run"]})
