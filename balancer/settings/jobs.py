"""Jobs of `POST /queue`, and the webhooks that report their end."""

from __future__ import annotations

from base64 import b64decode
from ipaddress import IPv6Network
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from balancer.settings.base import DAY_SECONDS, MIB, SettingsGroup

NAT64_LENGTHS = (32, 40, 48, 56, 64, 96)
"""Lengths that a prefix of NAT64 may have (RFC 6052, 2.2)."""


def _parse_nat64(prefixes: str) -> tuple[IPv6Network, ...]:
    parsed = []
    for part in filter(None, map(str.strip, prefixes.split(","))):
        try:
            network = IPv6Network(part)
        except ValueError as error:
            raise ValueError("must be IPv6 prefixes, separated by commas") from error
        if network.prefixlen not in NAT64_LENGTHS:
            raise ValueError(f"a prefix of NAT64 has a length of {', '.join(map(str, NAT64_LENGTHS))}")
        parsed.append(network)
    return tuple(parsed)


def _parse_ports(ports: str) -> tuple[range, ...]:
    parsed = []
    for part in ports.split(","):
        first, _, last = part.strip().partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise ValueError("must be ports and ranges of ports, such as 443,8000-8999")
        low, high = int(first), int(last or first)
        if not 1 <= low <= high <= 65535:
            raise ValueError(f"{part.strip()} is not a range of ports from 1 to 65535")
        parsed.append(range(low, high + 1))
    return tuple(parsed)


class JobSettings(SettingsGroup):
    """Jobs of `POST /queue`, and the webhooks that report their end."""

    title = "Jobs and webhooks"

    jobs_limit: int = Field(
        10_000, ge=1, description="Maximum number of queued jobs; above it `POST /queue` answers 503."
    )
    jobs_mib: int = Field(
        4096,
        ge=1,
        description="MiB of jobs' audio, with what running ones are expected to make; past it jobs wait and new ones "
        "get 503, unless `CHORUS_JOBS_WHEN_FULL` is `evict`. Keep it well below Redis's `maxmemory`.",
    )
    jobs_caller_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Largest part of `CHORUS_JOBS_LIMIT` and of `CHORUS_JOBS_MIB` that one caller may take; above it "
        "`POST /queue` answers this caller with 429.",
    )
    jobs_when_full: Literal["refuse", "evict"] = Field(
        "refuse",
        description="What happens when the audio of finished jobs reaches its size: `refuse` accepts no new jobs until "
        "there is room, `evict` deletes the oldest finished jobs.",
    )
    event_streams: int = Field(
        1000,
        ge=1,
        description="Maximum number of event streams of `GET /status` and of listeners to jobs at once; "
        "above it the answer is 503.",
    )
    event_streams_per_caller: int = Field(
        100,
        ge=1,
        description="Maximum number of event streams and listeners of one caller at once; above it the answer is 429.",
    )
    job_attempts: int = Field(5, ge=1, description="Number of attempts after which a job has failed.")
    job_days: float = Field(7.0, gt=0, description="Days for which a finished job and its audio are kept.")
    webhook_secret: SecretStr | None = Field(
        None,
        description="Key that signs webhooks: `whsec_` and 24 to 64 bytes in base64; unset: webhooks are not offered.",
    )
    webhook_private: bool = Field(False, description="Whether webhooks may be sent to addresses of private networks.")
    webhook_ports: str = Field(
        "80,443,1024-65535",
        description="Ports that webhooks may be sent to: numbers and ranges, separated by commas.",
    )
    webhook_nat64: str = Field(
        "",
        description="Prefixes of this network's own NAT64, such as `2001:db8:64::/96`, separated by commas: webhooks "
        "reach no private IPv4 address through them.",
    )

    @property
    def jobs_bytes(self) -> int:
        """`jobs_mib` in bytes."""
        return self.jobs_mib * MIB

    @property
    def webhook_port_ranges(self) -> tuple[range, ...]:
        """`webhook_ports`, parsed."""
        return _parse_ports(self.webhook_ports)

    @property
    def webhook_nat64_networks(self) -> tuple[IPv6Network, ...]:
        """`webhook_nat64`, parsed."""
        return _parse_nat64(self.webhook_nat64)

    @field_validator("webhook_nat64")
    @classmethod
    def _are_prefixes(cls, prefixes: str) -> str:
        _parse_nat64(prefixes)
        return prefixes

    @field_validator("webhook_ports")
    @classmethod
    def _are_ports(cls, ports: str) -> str:
        _parse_ports(ports)
        return ports

    @property
    def retention_seconds(self) -> float:
        """Seconds for which a finished job and its audio are kept."""
        return self.job_days * DAY_SECONDS

    @field_validator("webhook_secret")
    @classmethod
    def _can_sign(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            try:
                size = len(b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True))
            except ValueError:
                size = 0
            if not 24 <= size <= 64:
                raise ValueError(
                    "must be 24 to 64 bytes in base64, perhaps behind whsec_; make one with `openssl rand -base64 32`"
                )
        return secret
