"""The parts of `ghnas.trace`."""
