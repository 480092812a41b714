"""Search spaces: families, their files, archives of many architectures."""

from ghnas.spaces import (  # noqa: F401  (enter their families)
    cells,
    deepnets,
    dense_cells,
    layers,
    matrix_cells,
    stages,
)
from ghnas.spaces.base import Choice, Space
from ghnas.spaces.registry import list_spaces, load_space, parse_space, read_space_file

__all__ = ["Choice", "Space", "list_spaces", "load_space", "parse_space", "read_space_file"]
