"""A folder of images by class, as users have them, from parquet files such as CIFAR-10's.

Writes the first images of each class of the train files as `FOLDER/<class>/<number>.jpg`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import pyarrow.parquet

NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parquet", type=Path, help="the folder with train*.parquet")
    parser.add_argument("folder", type=Path, help="the folder to write")
    parser.add_argument("--per-class", type=int, default=500)
    options = parser.parse_args()
    written: Counter[int] = Counter()
    for path in sorted(options.parquet.glob("train*.parquet")):
        for row in pyarrow.parquet.read_table(path, columns=["img", "label"]).to_pylist():
            label = row["label"]
            if written[label] < options.per_class:
                place = options.folder / NAMES[label]
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{written[label]:05}.jpg").write_bytes(row["img"]["bytes"])
                written[label] += 1
    print(f"{sum(written.values()):,} images of {len(written)} classes in {options.folder}")


if __name__ == "__main__":
    main()
