"""What an architecture is: its graph, operations and blocks."""
