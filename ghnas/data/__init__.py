"""Data sets: the built-in one, torchvision's CIFAR-10, folders of images, parquet files, tar
shards, in memory or on the disk."""

from ghnas.data.batches import (
    Batches,
    RandomBatches,
    each_once,
    evaluation_batches,
    random_batches,
)
from ghnas.data.dataset import ImageData, LabelledImages, Split
from ghnas.data.sources import data_name, load_data

__all__ = [
    "Batches",
    "ImageData",
    "LabelledImages",
    "RandomBatches",
    "Split",
    "data_name",
    "each_once",
    "evaluation_batches",
    "load_data",
    "random_batches",
]
