"""Rigid head motion and what it does to a scan: trajectories, both simulators, recipes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "acquisition": ["Acquisition", "acquire"],
        "image_based": ["image_motion"],
        "kspace_based": ["kspace_motion"],
        "recipes": ["SEVERITIES", "SIMULATORS"],
        "sampling": ["sample_realistic", "sample_segments", "sample_time_course"],
        "trajectory": ["Trajectory", "displacement"],
        "transforms": ["ImageMotion", "KSpaceMotion", "RandomImageMotion", "RandomKSpaceMotion"],
    },
)
