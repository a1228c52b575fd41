"""The keys of the jobs in Redis."""

from __future__ import annotations

JOB = "chorus:job:"
AUDIO = "chorus:job-audio:"
IDEMPOTENCY = "chorus:job-key:"
AUDIO_PART = "chorus:job-audio-part:"
"""Audio that is being sent. It expires, unless a transition makes it the audio of its job."""
WEBHOOKS = "chorus:job-webhooks:"
"""Sorted sets, one for each caller: its jobs whose webhook is to be delivered, by the time when it is due."""
SEGMENTS = "chorus:job-segments:"
"""Hashes, one for each job that is spoken in segments: their PCM by number."""
COUNTS = "chorus:job-counts"
"""Hash: jobs in each state, bytes of all audio, the turn that jobs are claimed in now."""
FAILED = "chorus:jobs-failed"
"""Sorted set: failed jobs, by the time when they ended."""

SCRIPT_KEYS = [
    "chorus:job-numbers",
    COUNTS,
    "chorus:jobs-turns",  # sorted set: queued jobs that are due, by turn
    "chorus:jobs-later",  # sorted set: queued jobs that are not due yet, by the time when they are
    "chorus:job-leases",  # sorted set: running jobs, by the end of their lease
    "chorus:jobs-final",  # sorted set: final jobs, by the time when they ended
    FAILED,
    "chorus:job-webhook-callers",  # set: callers that have webhooks to be delivered
    # Hashes by caller: its queued jobs, its running jobs, the bytes of its audio, the turn of its last queued job.
    "chorus:jobs-queued-by",
    "chorus:jobs-running-by",
    "chorus:job-sizes-by",
    "chorus:job-last-turns",
    JOB,
    AUDIO,
    WEBHOOKS,
    SEGMENTS,
]
"""KEYS of every script, in the order in which `index.lua` numbers them; the last four are prefixes of keys."""

EARLIER_KEYS = ("chorus:jobs", "chorus:jobs-queued", "chorus:job-webhooks")
"""Stream, queue and webhooks of an earlier version, whose jobs are taken over."""

SEGMENTATION = "plan"
"""Field of a job's hash with the segmentation of its segments."""
KEPT = ("kept", "kept_size", "playable", "playable_size")
"""Fields of a job's hash with its KeptCounts."""


def idempotency_key(caller_id: str, key: str) -> str:
    """The Redis key of an idempotency key. The length keeps callers apart whose names contain colons."""
    return f"{IDEMPOTENCY}{len(caller_id)}:{caller_id}:{key}"
