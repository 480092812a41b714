"""The names of devices."""

from __future__ import annotations

import pytest
import torch

from ghnas.utils.devices import pick_device
from ghnas.utils.errors import UserError


def test_known_names() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize(
    "name", ["cuda:", "cuda:x", "cuda:-1", "cuda:\u00b2", "cpu:0", "CPU", "mps", ""]
)
def test_other_names_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="use auto, cpu, cuda or cuda:N"):
        pick_device(name)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(UserError, match="'cuda:1' is not there"):
        pick_device("cuda:1")
