"""The groups of settings, each of which is given whole to the part of the program that needs it.

The environment knows no groups: the variable of a setting is `CHORUS_` and the field's name in upper case, so no two
groups may have a field of one name.
"""

from __future__ import annotations

import os
import re
import tempfile
from base64 import b64decode
from ipaddress import IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator

from balancer.cpu_lists import parse_cores
from balancer.redis.location import RedisLocation
from worker.cards import CARDS, LANGUAGE_PACKS, MAX_PROMPT_SECONDS, EngineCard, FlowModel, Runtime
from worker.precision import Precision

DIGEST_PATTERN = r"^[0-9a-f]{64}$"
"""The SHA-256 digest of an API key, in hexadecimal."""
DIGEST_PREFIX = "sha256:"
"""Stands before a digest that is given in place of an API key."""
IDENTITY_PREFIX = "key:"
"""Begins the identity of an API key. No key's name and no address begins so."""

REPOSITORY = Path(__file__).resolve().parent.parent


def stand_in_home() -> Path | None:
    """Returns a folder in the temporary directory for a user without a home directory; None if there is a home.

    Containers often run under a user id that has no entry in the password file.
    """
    try:
        Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"chorus-{os.getuid()}-home"
    return None


def _make_absolute(path: Path) -> Path:
    if path.parts[:1] == ("~",) and (home := stand_in_home()) is not None:
        return home.joinpath(*path.parts[1:])
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError("the home directory of that user is unknown; write the path in full") from error


AbsolutePath = Annotated[Path, AfterValidator(_make_absolute)]
"""A path of which `~` and the current directory have been resolved."""


DAY_SECONDS = 86_400.0
MIB = 2**20
NAT64_LENGTHS = (32, 40, 48, 56, 64, 96)
"""Lengths that a prefix of NAT64 may have (RFC 6052, 2.2)."""
ANY_ORIGIN = "*"
"""Stands for the origins of all web pages."""
MIN_SECRET_BYTES = 32
"""Bytes of a key that signs with HMAC-SHA256, at least: those of the digest (RFC 2104, 3)."""
PROGRAM_MIB = 384
"""Memory of the balancer without the audio that it counts: the program, connections, and what is being synthesized,
encoded and read."""


class SettingsGroup(BaseModel):
    """Base of the groups. Sizes are in bytes and times in seconds, unless a name says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    title: ClassVar[str]
    """Heading of the group's table."""


class ServerSettings(SettingsGroup):
    """The address that the server listens on, and how it starts and stops."""

    title = "Server"

    host: str = Field(
        "127.0.0.1", min_length=1, description="Address to listen on; any other than loopback requires API keys."
    )
    port: int = Field(5000, ge=1, le=65535, description="Port to listen on.")
    agent_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port that answers HAProxy's agent check with this host's weight by its work, or `drain`; "
        "unset: none.",
    )
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s?#]+$",
        description="Address at which clients reach this server, used for the URLs in its answers; unset: taken from "
        "each request.",
    )
    trusted_proxies: str | None = Field(
        None,
        description="Addresses or networks of proxies, separated by commas, whose `X-Forwarded-For` header is "
        "believed; unset: none.",
    )
    run_dir: AbsolutePath | None = Field(
        None,
        description="Directory of the Unix sockets, mode 0700; unset: `chorus-<user id>-<port>` in the temporary "
        "directory.",
    )
    stop_seconds: int = Field(
        30,
        ge=1,
        description="Grace period in seconds for requests in flight when the server is stopped, or the balancer "
        "replaced; connections that do not end within it are cut.",
    )
    stop_delay_seconds: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds for which the server, once it is told to stop, still serves everything while `/ready` "
        "says 503, so that a proxy finds out before the port is closed.",
    )
    balancer_watchdog_seconds: float = Field(
        15.0,
        ge=0,
        description="Seconds without progress of its event loop after which the balancer's process is killed and "
        "replaced, counted in steps of 5; 0: never.",
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, proxies: str | None) -> str | None:
        for part in (proxies or "").split(","):
            if part.strip():
                ip_network(part.strip(), strict=False)
        return proxies

    @property
    def socket_dir(self) -> Path:
        """The directory of the sockets: `run_dir`, or the default for this user and port."""
        return self.run_dir or Path(tempfile.gettempdir()) / f"chorus-{os.getuid()}-{self.port}"

    @property
    def control_socket(self) -> Path:
        """The socket on which the balancer takes the operator's commands."""
        return self.socket_dir / "control.sock"

    @property
    def loopback(self) -> bool:
        """Whether `host` can be reached from this host only."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


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


class HttpSettings(SettingsGroup):
    """What a client may send and hold of connections, and how long it may take."""

    title = "HTTP connections"

    max_connections: int | None = Field(
        None,
        ge=1,
        description="Maximum number of open connections; unset: half of the file descriptors that are left for them, "
        "at most 8192. Above it the one that has waited longest for a request is closed; if all are busy a new one "
        "gets 503.",
    )
    max_connections_per_address: int | None = Field(
        None,
        ge=1,
        description="Maximum number of open connections of one client address, trusted proxies excepted; unset: half "
        "of the maximum of all.",
    )
    max_head_bytes: int = Field(
        65_536, ge=1024, description="Maximum size of a request's line and headers in bytes; above it 431."
    )
    max_header_bytes: int = Field(
        16_384, ge=256, description="Maximum size of one header, or of the request line, in bytes; above it 431 or 414."
    )
    max_headers: int = Field(100, ge=1, description="Maximum number of headers of a request; above it 431.")
    head_seconds: float = Field(
        10.0,
        gt=0,
        description="Seconds within which the headers of a request must arrive, counted from a new connection or "
        "from the first byte of a further request; after that 408.",
    )
    body_seconds: float = Field(
        20.0, gt=0, description="Seconds for which a client may send nothing of a request's body; after that 408."
    )
    write_seconds: float = Field(
        60.0,
        gt=0,
        description="Seconds for which a client may read nothing of its response; after that the connection is cut.",
    )
    min_bytes_per_second: float = Field(
        500.0,
        gt=0,
        description="Minimum average rate at which a client sends a body and reads a response, beyond the seconds "
        "above.",
    )
    keep_alive_seconds: float = Field(
        75.0, gt=0, description="Seconds for which a connection without a request stays open after a response."
    )


_PACKS = {pack.engine: pack.name for pack in LANGUAGE_PACKS}
_ENGINES = f"{', '.join(sorted(CARDS.keys() - _PACKS.keys()))}, or multilingual-PACK with PACK one of " + ", ".join(
    sorted(_PACKS.values())
)


class EngineSettings(SettingsGroup):
    """The speech engine, its checkpoint and its arithmetic."""

    title = "Engine"

    engine: str = Field("hibari", description=f"Engine that the workers run: {_ENGINES}.")
    model_dir: AbsolutePath | None = Field(
        None, description="Directory of the engine's checkpoint; unset: the cache of the Hugging Face hub."
    )
    model_revision: str | None = Field(
        None, description="Revision of the checkpoint on the Hugging Face hub; unset: the one this version supports."
    )
    runtime: Runtime = Field(
        Runtime.BATCHED,
        description="Implementation of the Chatterbox engines: `batched` decodes several utterances at once, `stock` "
        "runs the upstream classes, one utterance at a time.",
    )
    precision: Precision = Field(
        Precision.FP32,
        description="Number format of the batched runtime: `fp32` (equal to `stock` within a tolerance), or `bf16` or "
        "`int8`, if the processor has instructions for it.",
    )
    prompt_seconds: int = Field(
        MAX_PROMPT_SECONDS,
        ge=2,
        le=MAX_PROMPT_SECONDS,
        description="Seconds from the end of a voice's reference clip that condition the batched runtime's S3Gen "
        "decoder: fewer decode faster, but the voice resembles the speaker less; listen before you change it.",
    )
    flow: FlowModel = Field(
        FlowModel.UPSTREAM,
        description="Flow of Original and Multilingual: `upstream`, or `meanflow`, Turbo's two-step flow: a "
        "tenth of its work, another rendering of the voice; compare them with `chorus check-precision`.",
    )
    flow_steps: int | None = Field(
        None,
        ge=1,
        le=10,
        description="Steps of the flow: 4 to 10 for Original and Multilingual, 1 to 2 for Turbo, Nano and `meanflow`; "
        "fewer are faster and coarser; unset: upstream's, the most.",
    )
    retakes: int = Field(
        2,
        ge=0,
        le=10,
        description="Further takes of an utterance with other seeds, at most, where a Chatterbox model missed its end, "
        "stopped far too soon, fell silent or repeated a sound; 0: none.",
    )
    trim_end: bool = Field(
        True, description="Whether silence and noise behind the last word of a Chatterbox engine's audio are trimmed."
    )

    @field_validator("engine")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in CARDS:
            raise ValueError(f"there is no such engine; there are: {', '.join(sorted(CARDS))}")
        return name

    @property
    def card(self) -> EngineCard:
        """The engine's card."""
        return CARDS[self.engine]


class LayoutSettings(SettingsGroup):
    """How many workers run, and on which CPUs. `chorus serve` chooses what is unset."""

    title = "Workers"

    workers: int | None = Field(
        None, ge=1, le=1024, description="Number of worker processes; unset: chosen for the host."
    )
    threads: int | None = Field(None, ge=1, le=256, description="Threads of each worker; unset: chosen for the host.")
    slots: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Utterances that each worker synthesizes at once in the batched runtime; unset: chosen for the "
        "host.",
    )
    cores: str | None = Field(
        None,
        description="CPUs of each worker, workers separated by semicolons, such as `0-1;2-3`; unset: chosen for the "
        "host.",
    )

    @field_validator("cores")
    @classmethod
    def _parses(cls, cores: str | None) -> str | None:
        if cores is not None:
            parse_cores(cores)
        return cores


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


class LoggingSettings(SettingsGroup):
    """What is logged, and in which form."""

    title = "Logging"

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    log_format: Literal["text", "json"] = Field(
        "text", description="`text`: lines for people; `json`: one JSON object per line."
    )
    log_text: bool = Field(False, description="Whether the texts of requests appear in the log.")


class TextSettings(SettingsGroup):
    """What becomes of a text before an engine speaks it."""

    title = "Text"

    normalize: bool = Field(
        True,
        description="Whether markup, numbers, dates, units, abbreviations and the like are said as they are meant, "
        "where a request does not say (`normalize`).",
    )


class LimitSettings(SettingsGroup):
    """Limits of a single request."""

    title = "Request limits"

    max_text_characters: int = Field(
        5000, ge=1, le=1_000_000, description="Maximum length of a request's text in characters."
    )
    max_job_text_characters: int = Field(
        200_000,
        ge=1,
        le=1_000_000,
        description="Maximum length of a job's text in characters; never less than that of a request.",
    )
    max_body_bytes: int = Field(
        262_144,
        ge=1024,
        description="Maximum size of a request body in bytes; `POST /queue` takes 6 more for each character that only "
        "a job's text may have.",
    )
    max_batch_bytes: int = Field(
        8_388_608, ge=1024, description="Maximum size of the body of `POST /queue/batch` in bytes."
    )
    max_batch_lines: int = Field(
        10_000,
        ge=1,
        description="Maximum number of lines in the body of `POST /queue/batch`; above it the answer is 413.",
    )
    request_timeout: float = Field(
        300.0,
        gt=0,
        description="Maximum duration of a request in seconds, waiting included; after that the answer is 504.",
    )

    @property
    def job_text_characters(self) -> int:
        """Maximum length of a job's text in characters."""
        return max(self.max_text_characters, self.max_job_text_characters)

    @property
    def job_body_bytes(self) -> int:
        """Maximum size of the body of `POST /queue`: an escaped character of JSON has 6 bytes."""
        return self.max_body_bytes + 6 * (self.job_text_characters - self.max_text_characters)


class PauseSettings(SettingsGroup):
    """The silence between the segments of a text."""

    title = "Pauses"

    clause_pause_ms: int = Field(
        150, ge=0, le=10_000, description="Silence in ms within a sentence that is too long for one utterance."
    )
    sentence_pause_ms: int = Field(350, ge=0, le=10_000, description="Silence in ms after a sentence.")
    paragraph_pause_ms: int = Field(700, ge=0, le=10_000, description="Silence in ms after a paragraph.")


class StreamSettings(SettingsGroup):
    """Answers that are sent while they are made.

    A stream that may run dry is served by default: OpenAI's clients are streamed to unasked, many of them to a file,
    and a host that makes less audio than one stream plays would refuse them all.
    """

    title = "Streams"

    stream_ahead_seconds: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Seconds of audio that are made ahead of what a stream's client has read; then its next segments "
        "wait.",
    )
    stream_admission: Literal["best_effort", "refuse"] = Field(
        "best_effort",
        description="What becomes of a stream whose audio the host cannot make as fast as it plays: `best_effort` "
        "serves it, with gaps; `refuse` answers 503.",
    )
    stream_first_tokens: int = Field(
        25,
        ge=0,
        le=1000,
        description="Speech tokens (25 a second) after which a stream's first audio is made, before the rest of its "
        "segment, by an engine that can; 0: the first segment is made in one go.",
    )

    def first_piece_tokens(self, *, early_audio: bool) -> int | None:
        """The tokens of a stream's first piece, where the engine can hand one out early; None: there is none."""
        return (self.stream_first_tokens or None) if early_audio else None


class MemorySettings(SettingsGroup):
    """How much audio may be under way, and who encodes it."""

    title = "Memory and encoding"

    memory_mib: int = Field(
        1024,
        ge=PROGRAM_MIB + 64,
        description=f"Memory in MiB that the balancer is planned to take at most: {PROGRAM_MIB} for the program, the "
        "rest for bodies and audio under way. Large audio, and what is past that, lies in temporary files "
        "(in `TMPDIR`).",
    )
    spool_mib: int = Field(
        4096, ge=256, description="Maximum size of these temporary files in MiB; above it the answer is 503."
    )
    memory_caller_percent: int = Field(
        25,
        ge=1,
        le=100,
        description="Share of that memory, and of these files, that one caller may take, in percent.",
    )
    json_audio_mib: int = Field(
        32,
        ge=1,
        description="Maximum audio in MiB that `POST /tts-json` returns within JSON; above it the answer is 413.",
    )
    encoder_threads: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Threads that encode audio; unset: one less than the balancer has CPUs, at least 1 and at most 8.",
    )

    @property
    def audio_memory_bytes(self) -> int:
        """Bytes of audio that may be held in memory."""
        return (self.memory_mib - PROGRAM_MIB) * MIB

    @property
    def spool_bytes(self) -> int:
        """Bytes of audio that may be held in temporary files."""
        return self.spool_mib * MIB

    @property
    def caller_share(self) -> float:
        """The part of either that one caller may take."""
        return self.memory_caller_percent / 100

    @property
    def json_audio_bytes(self) -> int:
        """Bytes of audio that JSON may contain."""
        return self.json_audio_mib * MIB


class RateLimitSettings(SettingsGroup):
    """How much one caller may ask for. An API key's own limits replace these."""

    title = "Rate limits"

    rate_requests_per_minute: int | None = Field(
        None,
        ge=1,
        description="Maximum requests per minute of each caller, which is an API key or, without keys, a client "
        "address; unset: unlimited.",
    )
    rate_interval_seconds: int | None = Field(
        None, ge=1, description="Minimum seconds between two requests of a caller; unset: none."
    )
    rate_characters_per_minute: int | None = Field(
        None, ge=1, description="Maximum characters of text per minute of each caller; unset: unlimited."
    )
    rate_concurrency: int | None = Field(
        None, ge=1, description="Maximum requests that a caller may have in flight at once; unset: unlimited."
    )
    rate_mode: Literal["reject", "shape"] = Field(
        "reject",
        description="What happens to a request over a limit: `reject` answers 429, `shape` holds it until it is "
        "within the limit.",
    )
    rate_without_redis: Literal["local", "open", "closed"] = Field(
        "local",
        description="What happens while Redis, which counts for the limits, is unavailable, full or read-only: `local` "
        "counts on each host alone, `open` serves without limits, `closed` answers 503.",
    )


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


class SchedulingSettings(SettingsGroup):
    """The queue of utterances that wait for a slot."""

    title = "Scheduling"

    queue_limit: int = Field(
        1000,
        ge=1,
        description="Maximum number of queued utterances of each priority; above it the answer is 503.",
    )
    sjf_window: float = Field(
        1.75,
        ge=0,
        le=1000,
        description="Shortest job first, within a window: a text may overtake a longer one that arrived at most this "
        "many times the longer one's expected duration earlier; 0: each caller's texts go in order of arrival.",
    )
    batch_ageing_seconds: float = Field(
        60.0,
        ge=0,
        description="Seconds for which a batch utterance waits before every fourth turn goes to batch work.",
    )


class AttemptSettings(SettingsGroup):
    """When an attempt to synthesize an utterance has taken too long."""

    title = "Timeouts and hedging"

    attempt_seconds: float = Field(
        30.0,
        gt=0,
        description="Minimum time limit in seconds of one attempt, after which the utterance goes to another worker.",
    )
    attempt_factor: float = Field(
        10.0,
        ge=1,
        description="Time limit of one attempt as a multiple of the utterance's expected duration; the longer of the "
        "two limits counts.",
    )
    hedge_factor: float | None = Field(
        None,
        ge=1,
        description="Multiple of the expected duration after which an idle worker synthesizes the same utterance as "
        "well, if nothing is queued; unset: never.",
    )


class ProbeSettings(SettingsGroup):
    """How the balancer notices that a worker is gone or hangs."""

    title = "Worker health"

    probe_seconds: float = Field(0.5, gt=0, le=60, description="Interval between two probes of a worker in seconds.")
    probe_timeout: float = Field(2.0, gt=0, le=60, description="Seconds after which an unanswered probe has failed.")
    probe_failures: int = Field(3, ge=1, description="Consecutive failed probes after which a worker counts as gone.")
    recovery_seconds: float = Field(
        5.0,
        ge=0,
        description="Seconds for which requests wait for a worker to return when none is left; after that the answer "
        "is 503.",
    )
    unresponsive_seconds: float = Field(
        10.0,
        gt=0,
        description="Seconds without a valid answer after which the balancer kills a worker process, so that it is "
        "restarted.",
    )
    ejection_failures: int = Field(
        3,
        ge=0,
        description="Failed attempts, on utterances that succeeded elsewhere, from which a worker is restarted if they "
        "are half of its latest 20; 0: never. At least half of the other workers serve meanwhile.",
    )
    watchdog_seconds: float = Field(
        60.0, ge=0, description="Seconds without progress in its model after which a worker ends itself; 0: never."
    )


class RecyclingSettings(SettingsGroup):
    """When a worker that still works is replaced, one worker at a time."""

    title = "Worker recycling"

    recycle_utterances: int | None = Field(
        None, ge=1, description="Number of utterances after which a worker is replaced; unset: never."
    )
    recycle_mib: int | None = Field(
        None,
        ge=1,
        description="Memory of its own in MiB, shared weights not counted, above which a worker is replaced; unset: "
        "never.",
    )

    @property
    def recycle_bytes(self) -> int | None:
        """`recycle_mib` in bytes."""
        return None if self.recycle_mib is None else self.recycle_mib * MIB
