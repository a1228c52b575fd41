from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded_inference() -> Iterator[None]:
    torch.manual_seed(1)
    with torch.inference_mode():
        yield
