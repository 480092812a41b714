"""Commands whose processes are ended at random moments, and what must hold afterwards."""

COMMANDS = {}


def interrupted(name, inputs, rng):
    return None
