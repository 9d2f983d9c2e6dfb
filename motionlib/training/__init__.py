"""Training of a network: its specification, data, steps, checkpoints and predictions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "fitting": ["fit"],
        "prediction": ["predict"],
        "spec": ["TrainSpec"],
        "transfer": ["fine_tune"],
    },
)
