"""Data sets: the built-in one, torchvision's CIFAR-10, folders of images, parquet files."""

from ghnas.data.batches import Batches, RandomBatches, evaluation_batches, random_batches
from ghnas.data.dataset import ImageData, Split
from ghnas.data.sources import data_name, load_data

__all__ = [
    "Batches",
    "ImageData",
    "RandomBatches",
    "Split",
    "data_name",
    "evaluation_batches",
    "load_data",
    "random_batches",
]
