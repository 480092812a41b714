"""Running networks with given weights."""
