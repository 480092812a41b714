"""The graph hypernetwork."""
