"""Nothing goes in; the folder of the model that comes with the package comes out."""

from __future__ import annotations

from pathlib import Path

from motionlib.files import PACKAGE

FOLDER = "model"


def default_model() -> Path:
    """Find the shipped model.

    Returns
    -------
    Path
        A folder with ``weights.safetensors``, ``model.json`` and the model card.

    Raises
    ------
    FileNotFoundError
        If this installation has none.
    """
    folder = PACKAGE / FOLDER
    if not (folder / "model.json").is_file():
        raise FileNotFoundError(
            "this installation has no shipped model; name a model folder with --model DIR "
            "(motionlib finetune and make model write one)"
        )
    return folder
