"""Where an installation keeps its pictures and models: in its data folder, or in object storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shelver.library import ModelStore
from shelver.objects import Objects
from shelver.service.products.picture_store import PictureStore, decoded_here
from shelver.settings import ServiceSettings

PICTURES: Final = "pictures"
MODELS: Final = "models"
FETCHED: Final = "fetched"
"""Models of the object storage, as far as they were needed here; it can be deleted while nothing runs."""


def open_pictures(settings: ServiceSettings, *, check: Callable[[bytes], None] = decoded_here) -> PictureStore:
    """The pictures of an installation.

    Args:
        settings: of it.
        check: as of `PictureStore`.

    Raises:
        ConfigError: the storage of the settings cannot be used.
        MissingExtraError: it needs obstore, which is not installed.
    """
    if settings.storage is None:
        return PictureStore(settings.data / PICTURES, check=check)
    return PictureStore(Objects(settings.storage), check=check)


def open_store(settings: ServiceSettings) -> ModelStore:
    """The models of an installation; raises as `open_pictures`."""
    if settings.storage is None:
        return ModelStore(settings.data / MODELS)
    return ModelStore(settings.data / FETCHED, Objects(settings.storage))
