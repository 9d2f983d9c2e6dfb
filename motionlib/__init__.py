"""Motion artefacts in T1-weighted brain MRI: simulate, detect, measure, compare."""

__version__ = "0.1.0"
