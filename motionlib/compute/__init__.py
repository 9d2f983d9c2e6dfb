"""Where work is done: in this process, on its cores, on a Dask or SLURM cluster."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"engines": ["Failure", "close", "configure_cpu", "raise_failures", "submit"]},
)
