"""Settings: read once, from one mapping of environment variables, `CHORUS_` before each field's name.

A variable that is set to nothing counts as not set; a relative path counts from the folder serve is started in.

`chorus serve` fills in the layout it chose and hands the same variables to the balancer it starts.
"""

from __future__ import annotations

import os
import re
import tempfile
from base64 import b64decode
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo

from balancer.access.api_keys import DIGEST, DIGEST_PREFIX
from balancer.cpu_lists import parse_cores
from worker.cards import CARDS, PROMPT_SECONDS, Runtime
from worker.precision import Precision

PREFIX = "CHORUS_"
OTHER_VARIABLES = frozenset(
    {"CHORUS_URL", "CHORUS_API_KEY", "CHORUS_LAYOUT", "CHORUS_PYTHON", "CHORUS_UID", "CHORUS_LISTENERS"}
)
"""No settings of the server: two for the command line as a client, three from `chorus serve` to supervisord, one from a
balancer to its successor."""

SECRET = frozenset({"api_keys", "redis_url", "webhook_secret"})
"""Fields whose values no message repeats."""

REPOSITORY = Path(__file__).resolve().parent.parent


class SettingsError(ValueError):
    """A variable has a value that does not fit; the message names the variable and what it accepts."""


class Settings(BaseModel):
    """All that an operator can set. Sizes in bytes, times in seconds, unless the name says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on. Any but loopback needs API keys.")
    port: int = Field(5000, ge=1, le=65535, description="Port to listen on.")
    api_keys: tuple[SecretStr, ...] = Field(
        (), description="Keys that clients must send one of, separated by commas; none: no key is asked for."
    )
    keys_file: Path | None = Field(
        None, description="File of API keys, which `chorus keys` writes; unset: `keys.json` in the data folder."
    )
    allow_anonymous: bool = Field(
        False,
        description="Listen beyond loopback without API keys: only behind a firewall or proxy of yours.",
    )
    open_metrics: bool = Field(False, description="Whether `/metrics` needs no key.")
    open_docs: bool = Field(True, description="Whether `/docs` and `/openapi.json` need no key.")
    trusted_proxies: str | None = Field(
        None,
        description="Addresses or networks, separated by commas, whose `X-Forwarded-For` tells the client's address; "
        "unset: none.",
    )
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s?#]+$",
        description="Where clients reach this server, for the addresses it tells them; unset: as their requests say.",
    )

    engine: str = Field("hibari", description=f"Engine that the workers run: {', '.join(sorted(CARDS))}.")
    workers: int | None = Field(None, ge=1, le=1024, description="Worker processes; unset: chosen for this host.")
    threads: int | None = Field(None, ge=1, le=256, description="Threads a worker; unset: chosen for this host.")
    slots: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Utterances that each worker speaks at once, in the batched runtime; unset: chosen for this host.",
    )
    runtime: Runtime = Field(
        Runtime.BATCHED,
        description="How the Chatterbox engines run: `batched`, several utterances at once, or `stock`, upstream's own "
        "classes, one at a time.",
    )
    precision: Precision = Field(
        Precision.FP32,
        description="Numbers of the batched runtime: `fp32` (equal to stock within a tolerance), `bf16` or `int8`, "
        "where the processor has instructions for them.",
    )
    prompt_seconds: int = Field(
        PROMPT_SECONDS,
        ge=2,
        le=PROMPT_SECONDS,
        description="Most seconds of a voice's clip, its last, that lead the batched runtime's decoder of sound: fewer "
        "make sound sooner, and a voice that is less the speaker's. Listen before you change it.",
    )
    cores: str | None = Field(
        None,
        description="CPUs of each worker, workers separated by semicolons, such as `0-1;2-3`; unset: chosen.",
    )
    model_dir: Path | None = Field(
        None, description="Folder of the engine's checkpoint; unset: the Hugging Face hub's cache."
    )
    model_revision: str | None = Field(
        None, description="Revision of the checkpoint in the hub; unset: the one this version was made with."
    )
    cache_dir: Path = Field(
        Path("~/.cache/chorus"),
        validate_default=True,
        description="Folder for what is computed once, such as voices' conditionals; `XDG_CACHE_HOME` moves it, too.",
    )
    data_dir: Path = Field(
        Path("~/.local/share/chorus"),
        validate_default=True,
        description="Folder of what must not be lost: jobs and API keys; `XDG_DATA_HOME` moves it, too.",
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Redis that several hosts share for audio cache, rate limits and jobs, `redis://host:6379/0`; "
        "unset: files on this host.",
    )
    voices_dir: Path = Field(REPOSITORY / "voices", description="Folder of voices, one folder each.")
    run_dir: Path | None = Field(
        None,
        description="Folder of the sockets, mode 0700; unset: `chorus-<user id>-<port>` in the temporary folder.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["text", "json"] = Field("text", description="Lines for people, or a JSON object each.")
    log_text: bool = Field(False, description="Whether the texts of requests are logged.")

    max_text_characters: int = Field(5000, ge=1, le=1_000_000, description="Longest text of one request.")
    max_body_bytes: int = Field(262_144, ge=1024, description="Largest request body.")
    max_batch_bytes: int = Field(8_388_608, ge=1024, description="Largest body of `POST /queue/batch`.")
    rate_requests_per_minute: int | None = Field(
        None, ge=1, description="Requests a minute of each key or, without one, address; unset: without limit."
    )
    rate_interval_seconds: int | None = Field(None, ge=1, description="Least time between two of its requests.")
    rate_characters_per_minute: int | None = Field(None, ge=1, description="Characters a minute, likewise.")
    rate_concurrency: int | None = Field(None, ge=1, description="Most of its requests under way at once.")
    rate_mode: Literal["reject", "shape"] = Field(
        "reject", description="What is over a limit is answered with 429, or held until its turn."
    )
    rate_without_redis: Literal["open", "closed"] = Field(
        "open", description="While limits cannot be counted (Redis is gone), serve without them, or not at all (503)."
    )
    cache_mib: int = Field(
        1024,
        ge=0,
        description="Size of the audio cache; 0: nothing is kept, nor shared by identical requests under way.",
    )
    cache_days: float = Field(7.0, gt=0, description="How long audio is kept.")
    jobs_limit: int = Field(10_000, ge=1, description="Most jobs that are queued; past it `POST /queue` answers 503.")
    job_attempts: int = Field(5, ge=1, description="Attempts at a job before it has failed.")
    job_days: float = Field(7.0, gt=0, description="How long a job and its audio are kept after its end.")
    webhook_secret: SecretStr | None = Field(
        None, description="Signs webhooks: `whsec_` and 24 to 64 bytes in base64; unset: none are told."
    )
    webhook_private: bool = Field(False, description="Whether webhooks may be at addresses of private networks.")
    queue_limit: int = Field(
        1000, ge=1, description="Most utterances that wait in line, for each priority; past it the answer is 503."
    )
    sjf_window: float = Field(
        1.75,
        ge=0,
        le=1000,
        description="Shortest job first, within a window: a text may overtake a longer one that arrived at most this "
        "many times the longer one's expected duration earlier. 0: each caller's texts go in order of arrival.",
    )
    batch_ageing_seconds: float = Field(
        60.0,
        ge=0,
        description="Once a batch utterance has waited so many seconds, every fourth turn goes to batch work.",
    )
    request_timeout: float = Field(
        300.0, gt=0, description="Seconds for one request, waiting included; past it the answer is 504."
    )
    attempt_seconds: float = Field(
        30.0, gt=0, description="Least time that a worker is given for an utterance before another one tries."
    )
    attempt_factor: float = Field(
        10.0, ge=1, description="The same as a multiple of its expected duration; the longer of the two counts."
    )
    hedge_factor: float | None = Field(
        None,
        ge=1,
        description="An idle worker speaks the same utterance, too, once it takes this many times its expected "
        "duration and nobody waits; unset: never.",
    )
    recovery_seconds: float = Field(
        5.0, ge=0, description="How long requests wait for a worker to come back when none is left; then 503."
    )
    probe_seconds: float = Field(0.5, gt=0, le=60, description="Pause between two looks at a worker's state.")
    probe_timeout: float = Field(
        2.0, gt=0, le=60, description="A look at a worker's state that takes longer than this has failed."
    )
    probe_failures: int = Field(3, ge=1, description="Looks in a row that must fail before a worker counts as gone.")
    unresponsive_seconds: float = Field(
        10.0,
        gt=0,
        description="Seconds without an answer after which the balancer kills a worker process, so that it is "
        "restarted.",
    )
    watchdog_seconds: float = Field(
        60.0, ge=0, description="A worker whose model makes no progress for so long ends itself; 0: never."
    )
    recycle_utterances: int | None = Field(
        None, ge=1, description="A worker is replaced after so many utterances, one at a time; unset: never."
    )
    recycle_mib: int | None = Field(
        None, ge=1, description="A worker whose own memory passes so many MiB is replaced, one at a time; unset: never."
    )
    stop_seconds: int = Field(30, ge=1, description="Grace for what is in flight when the server is stopped.")

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
                if not re.fullmatch(DIGEST, text.removeprefix(DIGEST_PREFIX)):
                    raise ValueError(f"after {DIGEST_PREFIX} comes a SHA-256 digest, 64 hexadecimal digits")
                continue
            # Others reach the server in whatever encoding the client chose, if at all.
            if len(text) < 16 or not text.isascii() or not text.isprintable():
                raise ValueError("a key needs at least 16 characters, all ASCII; make one with `openssl rand -hex 32`")
        return keys

    @field_validator("engine")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in CARDS:
            raise ValueError(f"there is no such engine; there are: {', '.join(sorted(CARDS))}")
        return name

    @field_validator("cores")
    @classmethod
    def _readable(cls, cores: str | None) -> str | None:
        if cores is not None:
            parse_cores(cores)
        return cores

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, proxies: str | None) -> str | None:
        for part in (proxies or "").split(","):
            if part.strip():
                ip_network(part.strip(), strict=False)
        return proxies

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not re.match(r"rediss?://[^/]", url.get_secret_value()):
            raise ValueError("must look like redis://host:6379/0, or rediss:// for TLS")
        return url

    @field_validator("webhook_secret")
    @classmethod
    def _signs(cls, secret: SecretStr | None) -> SecretStr | None:
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

    @field_validator("model_dir", "cache_dir", "data_dir", "keys_file", "voices_dir", "run_dir")
    @classmethod
    def _absolute(cls, folder: Path | None) -> Path | None:
        try:
            return folder.expanduser().absolute() if folder is not None else None
        except RuntimeError as error:
            raise ValueError("nothing is known of that home folder; write the path in full") from error

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: object) -> Self:
        """Settings from `environ` (default: the process's), `overrides` that are not None going before it.

        Raises SettingsError naming every variable at fault, unknown ones included.
        """
        environ = os.environ if environ is None else environ
        fields = {variable(field): field for field in cls.model_fields}
        values: dict[str, object] = {
            fields.get(name, name): value
            for name, value in environ.items()
            if name.startswith(PREFIX) and name not in OTHER_VARIABLES and value
        }
        for field, name in (("cache_dir", "XDG_CACHE_HOME"), ("data_dir", "XDG_DATA_HOME")):
            folder = environ.get(name, "")
            if Path(folder).is_absolute():  # its specification has others ignored
                values.setdefault(field, Path(folder) / "chorus")
        values |= {name: value for name, value in overrides.items() if value is not None}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError("\n".join(_fault(fault) for fault in error.errors())) from error

    @property
    def sockets(self) -> Path:
        """The folder of the sockets."""
        folder = f"chorus-{os.getuid()}-{self.port}"
        return self.run_dir or Path(tempfile.gettempdir()) / folder

    @property
    def control_socket(self) -> Path:
        """Where the operator's commands reach the balancer."""
        return self.sockets / "control.sock"

    @property
    def keys(self) -> Path:
        """The file of API keys."""
        return self.keys_file or self.data_dir / "keys.json"

    @property
    def redis(self) -> str | None:
        """Address of the Redis, with its password."""
        return None if self.redis_url is None else self.redis_url.get_secret_value()

    @property
    def loopback(self) -> bool:
        """Whether only this host can reach the address to listen on."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def environ(self) -> dict[str, str]:
        """The variables that make `load` give these settings again."""
        values = {name: getattr(self, name) for name in type(self).model_fields} | {"run_dir": self.sockets}
        return {variable(name): _text(value) for name, value in values.items() if value not in (None, ())}


def variable(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + name.upper()


def table() -> list[tuple[str, str, str]]:
    """Every setting as (variable, default, description), for `chorus settings` and the README."""
    return [
        (variable(name), _default(name, field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def _default(name: str, field: FieldInfo) -> str:
    return "voices" if name == "voices_dir" else _text(field.default)


def _text(value: object) -> str:
    match value:
        case None | ():
            return ""
        case bool():
            return str(value).lower()
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            return ",".join(key.get_secret_value() for key in value)
        case _:
            return str(value)


def _fault(fault: Mapping[str, object]) -> str:
    location = fault["loc"]
    assert isinstance(location, tuple)  # noqa: S101 - pydantic's own promise, told to mypy
    field = str(location[0])
    if fault["type"] == "extra_forbidden":
        known = ", ".join(variable(field) for field in Settings.model_fields)
        return f"{field} is no setting; there are: {known}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "bool_parsing":
        message = "Input should be true or false"
    got = "" if field in SECRET else f" (got {fault['input']!r})"
    return f"{variable(field)}: {message}{got}"
