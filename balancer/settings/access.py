"""Who may use the server."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from balancer.settings.base import AbsolutePath, SettingsGroup

DIGEST_PATTERN = r"^[0-9a-f]{64}$"
"""The SHA-256 digest of an API key, in hexadecimal."""
DIGEST_PREFIX = "sha256:"
"""Stands before a digest that is given in place of an API key."""
IDENTITY_PREFIX = "key:"
"""Begins the identity of an API key. No key's name and no address begins so."""
ANY_ORIGIN = "*"
"""Stands for the origins of all web pages."""
MIN_SECRET_BYTES = 32
"""Bytes of a key that signs with HMAC-SHA256, at least: those of the digest (RFC 2104, 3)."""


def _parse_origins(origins: str) -> frozenset[str]:
    """The origins in a list that is separated by commas, or ANY_ORIGIN alone. Raises ValueError."""
    parts = [part.strip() for part in origins.split(",")]
    parsed = frozenset(part if part == ANY_ORIGIN else _checked_origin(part) for part in parts if part)
    if ANY_ORIGIN in parsed and len(parsed) > 1:
        raise ValueError("`*` is every origin; write it alone, or the origins without it")
    return parsed


def _checked_origin(text: str) -> str:
    """An origin, which is compared with what browsers send: so it must be in their form. Raises ValueError."""
    no_origin = ValueError(
        f"{text!r} is no origin: write a scheme, a host in ASCII, without patterns, and perhaps a port, "
        "such as https://example.org or http://localhost:3000"
    )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise no_origin from error
    host = parts.hostname
    if not (parts.scheme and host) or "@" in parts.netloc or not re.fullmatch(r"[A-Za-z0-9.:_-]+", host):
        raise no_origin
    if port == {"http": 80, "https": 443}.get(parts.scheme):
        port = None
    canonical = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{'' if port is None else f':{port}'}"
    if text != canonical:
        raise ValueError(f"browsers do not send {text!r}; write {canonical}")
    return text


class AccessSettings(SettingsGroup):
    """Who may use the server."""

    title = "Access"

    api_keys: tuple[SecretStr, ...] = Field(
        (),
        description="API keys, separated by commas, one of which each request must carry; unset: the keys of the keys "
        "file apply, and if there are none either, no key is needed.",
    )
    keys_file: AbsolutePath | None = Field(
        None, description="File of API keys, written by `chorus keys`; unset: `keys.json` in the data directory."
    )
    allow_anonymous: bool = Field(
        False,
        description="Whether to listen beyond loopback without API keys; only safe behind your own firewall or proxy.",
    )
    allowed_hosts: str | None = Field(
        None,
        description="Further names of this server in the headers Host and Origin, separated by commas. Without API "
        "keys a server on loopback answers only to these, to loopback names and to the host of `CHORUS_PUBLIC_URL`.",
    )
    cors_origins: str | None = Field(
        None,
        description="Origins of the web pages that may use this server (CORS), separated by commas, such as "
        "`https://example.org`; `*`: those of all pages; unset: none.",
    )
    get_tts: bool = Field(
        False,
        description="Whether `GET /tts?text=…` speaks, for `<audio src>`; signed links of `POST /tts/link` do always.",
    )
    link_secret: SecretStr | None = Field(
        None,
        description="Key that signs links, of at least 32 bytes, the same on all hosts that share them; unset: a "
        "random one in the data directory.",
    )
    open_metrics: bool = Field(
        False, description="Whether `/metrics`, with the memory and CPU time of each worker, is served without a key."
    )
    open_docs: bool = Field(True, description="Whether `/docs` and `/openapi.json` are served without a key.")
    page: bool = Field(True, description="Whether the page at `/` is there. It holds no data, and needs no key itself.")

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: str | None) -> str | None:
        _parse_origins(origins or "")
        return origins

    @property
    def allowed_origins(self) -> frozenset[str]:
        """`cors_origins`, parsed: origins as browsers send them, or ANY_ORIGIN alone."""
        return _parse_origins(self.cors_origins or "")

    @field_validator("link_secret")
    @classmethod
    def _is_long(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"needs at least {MIN_SECRET_BYTES} bytes; make one with `openssl rand -hex 32`")
        return secret

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(key for part in value.split(",") if (key := part.strip()))
        return value

    @field_validator("api_keys")
    @classmethod
    def _usable(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in keys:
            text = key.get_secret_value()
            if text.startswith(DIGEST_PREFIX):
                if not re.fullmatch(DIGEST_PATTERN, text.removeprefix(DIGEST_PREFIX)):
                    raise ValueError(f"after {DIGEST_PREFIX} comes a SHA-256 digest, 64 hexadecimal digits")
                continue
            # Clients encode other characters in different ways, or cannot send them in a header.
            if len(text) < 16 or not text.isascii() or not text.isprintable():
                raise ValueError("a key needs at least 16 characters, all ASCII; make one with `openssl rand -hex 32`")
        return keys
