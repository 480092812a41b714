"""What all tests of the engine share."""

from __future__ import annotations

import pytest

from ghnas.engine.samplers import PredictorSearch


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates among which the predictor chooses."""
    monkeypatch.setattr(PredictorSearch, "fresh", 30)
    monkeypatch.setattr(PredictorSearch, "mutants", 50)
