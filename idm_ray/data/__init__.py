"""Data sets as image stores: found, read once, mapped into memory, split and sampled by class.

What is named here is imported when it is first used: the processes that decode images do without torch.
"""

from typing import TYPE_CHECKING

from idm_ray.runtime.lazy import lazily

if TYPE_CHECKING:
    from idm_ray.data.loading import Data, load_data
    from idm_ray.data.outline import Ahead, Outline, outline_data
    from idm_ray.data.sampling import ClassImages
    from idm_ray.data.sources import SOURCES
    from idm_ray.data.split import split_rows
    from idm_ray.data.store import ImageStore, StoreRef, open_store

__all__ = [
    "SOURCES",
    "Ahead",
    "ClassImages",
    "Data",
    "ImageStore",
    "Outline",
    "StoreRef",
    "load_data",
    "open_store",
    "outline_data",
    "split_rows",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Ahead": "outline",
        "SOURCES": "sources",
        "ClassImages": "sampling",
        "Data": "loading",
        "ImageStore": "store",
        "StoreRef": "store",
        "Outline": "outline",
        "load_data": "loading",
        "open_store": "store",
        "outline_data": "outline",
        "split_rows": "split",
    },
)
