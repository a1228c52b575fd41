"""Where data lies, and how long the audio cache keeps audio."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from balancer.redis.location import RedisLocation
from balancer.runtime.repository import REPOSITORY
from balancer.settings.base import DAY_SECONDS, MIB, AbsolutePath, SettingsGroup


class StorageSettings(SettingsGroup):
    """Where data lies, and how long the audio cache keeps audio."""

    title = "Storage"

    data_dir: AbsolutePath = Field(
        Path("~/.local/share/chorus"),
        validate_default=True,
        description="Directory of persistent data: jobs, API keys, the key of signed links; unset: `chorus` in "
        "`XDG_DATA_HOME`, if that is set.",
    )
    cache_dir: AbsolutePath = Field(
        Path("~/.cache/chorus"),
        validate_default=True,
        description="Directory of data that can be computed again: the audio cache, voices' conditionals, compiled "
        "kernels; unset: `chorus` in `XDG_CACHE_HOME`, if that is set.",
    )
    voices_dir: AbsolutePath = Field(REPOSITORY / "voices", description="Directory of voices, one subdirectory each.")
    redis_url: SecretStr | None = Field(
        None,
        description="Redis in which several hosts share cache, limits and jobs: `redis://host:6379/0`, `rediss://` for "
        "TLS, `redis+sentinel://host,host/name/0?sentinel_password=…`; unset: own files.",
    )
    cache_mib: int = Field(
        1024,
        ge=0,
        description="Maximum size of the audio cache in MiB; 0: no audio is kept, and identical requests in flight are "
        "not merged.",
    )
    cache_days: float = Field(7.0, gt=0, description="Days after which audio in the cache expires.")
    cache_scope: Literal["shared", "caller"] = Field(
        "shared",
        description="Who shares cached audio: `shared`: all callers; `caller`: each API key, or address, has its own. "
        "Where it is shared, a hit tells a caller that somebody has said those words.",
    )

    @property
    def cache_bytes(self) -> int:
        """Maximum size of the audio cache in bytes."""
        return self.cache_mib * MIB

    @property
    def cache_seconds(self) -> float:
        """Seconds after which audio in the cache expires."""
        return self.cache_days * DAY_SECONDS

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            RedisLocation.parse(url.get_secret_value())
        return url
