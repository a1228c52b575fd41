"""Jobs as they are stored."""

from __future__ import annotations

import json

from balancer.jobs.job import read_job
from tests.support.jobs import job


def test_a_segmentation_is_stored_under_the_name_that_earlier_versions_read() -> None:
    begun = job(1).with_segmentation("digest", 3, 1)
    stored = json.loads(begun.to_json())
    assert stored["plan"] == "digest"
    assert "segmentation" not in stored
    assert read_job("job-1", begun.to_json()).segmentation == "digest"
