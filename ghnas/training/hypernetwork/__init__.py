"""Training hypernetworks."""
