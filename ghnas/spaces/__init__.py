"""Search spaces: families, their files, archives of many architectures."""
