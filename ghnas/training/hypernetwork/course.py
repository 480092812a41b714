"""How many steps an adaptation has, and the learning rate of each."""

from __future__ import annotations

import math

EVALUATIONS = 12
"""Points of the validation curve; what an interruption can lose is the time between two."""
UNTIMED, TIMED = 3, 12
"""Steps after which the rate is measured, and steps that it is measured over."""
UNKNOWN = 10**9
"""Steps of an adaptation whose number is not known yet."""


class Course:
    """The number of steps, and of those between evaluations; the learning rate of each step."""

    def __init__(self, steps: int | None) -> None:
        self.planned = self.steps = steps

    def decide(self, done: int, seconds: float, each: float) -> None:
        """Fill so many seconds with steps that take `each`."""
        self.planned = self.steps = done + max(int(seconds / each), 1)

    @property
    def every(self) -> int:
        """Steps between evaluations."""
        return math.ceil((self.planned or UNKNOWN) / EVALUATIONS)

    def evaluates_after(self, done: int) -> bool:
        """Whether so many steps are followed by an evaluation; the first ones, which may be timed,
        are not."""
        regular = done >= UNTIMED + TIMED and done % self.every == 0
        return self.steps is not None and (regular or done == self.steps)

    def factor(self, step: int) -> float:
        """Of the learning rate, as in `rate_schedule`."""
        steps = self.steps or UNKNOWN
        return 0.1 ** sum(step >= math.ceil(part * steps / 6) for part in (4, 5))

    def shorten(self, done: int) -> bool:
        """Have the rate fall now; False if it has fallen before."""
        assert self.steps
        if self.factor(done) < 1:
            return False
        self.steps = min(self.steps, math.ceil(done * 3 / 2))
        return True

    def state_dict(self) -> dict[str, int | None]:
        """What is kept of it."""
        return {"planned": self.planned, "steps": self.steps}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        """The inverse."""
        self.planned, self.steps = state["planned"], state["steps"]
