"""The parts of `ghnas.architectures.tracing.trace`."""
