"""Rigid head motion and what it does to a scan: trajectories, both simulators, recipes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "acquisition": ["acquire"],
        "image_based": ["image_motion", "kspace_motion"],
        "protocols": ["Acquisition"],
        "recipes": ["SEVERITIES", "SIMULATORS"],
        "replays": ["ImageMotion", "KSpaceMotion"],
        "sampling": ["sample_realistic", "sample_segments", "sample_time_course"],
        "severity": ["displacement"],
        "trajectory": ["Trajectory"],
        "transforms": ["RandomImageMotion", "RandomKSpaceMotion"],
    },
)
