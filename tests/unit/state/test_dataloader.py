"""A data loader is refused and not silently left out."""

from __future__ import annotations

import pytest
import torch

from gradient.errors import InvalidInputError
from gradient.state import TrainState


def test_a_loader_is_refused_and_the_hint_says_what_works_today():
    loader = torch.utils.data.DataLoader([1, 2, 3])
    with pytest.raises(InvalidInputError, match="DataLoader") as caught:
        TrainState().add_dataloader("main", loader)
    assert caught.value.code == "dataloader-unsupported"
    assert "register" in caught.value.hint
