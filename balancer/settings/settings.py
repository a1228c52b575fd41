"""The settings of one Chorus host: read once, from one mapping of environment variables.

A variable that is set to the empty string counts as unset; a relative path counts from the current directory.

Where systemd passes credentials on (`LoadCredential=`), secrets are read from their files: `chorus_redis_url` is that
of CHORUS_REDIS_URL, which takes precedence.

`chorus serve` adds the layout that it chose and passes the same variables on to the balancer that it starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from balancer.settings.access import AccessSettings
from balancer.settings.base import SettingsGroup
from balancer.settings.engine import EngineSettings
from balancer.settings.http import HttpSettings
from balancer.settings.jobs import JobSettings
from balancer.settings.limits import LimitSettings, MemorySettings, RateLimitSettings
from balancer.settings.scheduling import AttemptSettings, SchedulingSettings
from balancer.settings.server import LoggingSettings, ServerSettings
from balancer.settings.speech import PauseSettings, StreamSettings, TextSettings
from balancer.settings.storage import StorageSettings
from balancer.settings.workers import LayoutSettings, ProbeSettings, RecyclingSettings
from worker.options import EngineOptions

PREFIX = "CHORUS_"
OTHER_VARIABLES = frozenset(
    {
        "CHORUS_URL",
        "CHORUS_API_KEY",
        "CHORUS_WORKER_ARGV",
        "CHORUS_WORKER_UNSET",
        "CHORUS_BALANCER_STOP_WAIT",
        "CHORUS_PYTHON",
        "CHORUS_LISTENERS",
    }
)
"""Variables that are no settings of the server: two are for the command line as a client, the others pass from
`chorus serve` to supervisord and the balancer."""

SECRET = frozenset({"api_keys", "link_secret", "redis_url", "webhook_secret"})
"""Fields whose values no message repeats. Each may be a credential of systemd, as may the keys file."""

KEYS_FILE = "keys_file"

CREDENTIALS_DIRECTORY = "CREDENTIALS_DIRECTORY"
"""Variable in which systemd names the folder of a unit's credentials."""


class SettingsError(ValueError):
    """A variable has a value that is not accepted; the message names the variable and the accepted values."""


class Settings(BaseModel):
    """Everything that an operator can set."""

    model_config = SettingsGroup.model_config

    server: ServerSettings = Field(default_factory=ServerSettings)
    access: AccessSettings = Field(default_factory=AccessSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    layout: LayoutSettings = Field(default_factory=LayoutSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    logging: LoggingSettings = Field(default_factory=LoggingSettings)
    text: TextSettings = Field(default_factory=TextSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    pauses: PauseSettings = Field(default_factory=PauseSettings)
    streams: StreamSettings = Field(default_factory=StreamSettings)
    memory: MemorySettings = Field(default_factory=MemorySettings)
    rates: RateLimitSettings = Field(default_factory=RateLimitSettings)
    jobs: JobSettings = Field(default_factory=JobSettings)
    scheduling: SchedulingSettings = Field(default_factory=SchedulingSettings)
    attempts: AttemptSettings = Field(default_factory=AttemptSettings)
    probes: ProbeSettings = Field(default_factory=ProbeSettings)
    recycling: RecyclingSettings = Field(default_factory=RecyclingSettings)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: object) -> Self:
        """Returns the settings in `environ` (default: the process's environment).

        `overrides` are fields of any group; those that are not None take precedence over the environment. Raises
        SettingsError, which names every variable at fault, unknown ones included.
        """
        environ = os.environ if environ is None else environ
        fields = {variable(field): field for field in _GROUP_OF}
        values: dict[str, object] = {
            fields.get(name, name): value
            for name, value in environ.items()
            if name.startswith(PREFIX) and name not in OTHER_VARIABLES and value
        }
        for field, name in (("cache_dir", "XDG_CACHE_HOME"), ("data_dir", "XDG_DATA_HOME")):
            folder = environ.get(name, "")
            if Path(folder).is_absolute():  # the XDG specification says to ignore relative paths
                values.setdefault(field, Path(folder) / "chorus")
        values = _credentials(environ) | values
        values |= {name: value for name, value in overrides.items() if value is not None}
        unknown = {name: value for name, value in values.items() if name not in _GROUP_OF}
        groups = _in_groups({name: value for name, value in values.items() if name in _GROUP_OF})
        try:
            return cls.model_validate(groups | unknown)
        except ValidationError as error:
            raise SettingsError("\n".join(_describe(fault) for fault in error.errors())) from error

    def updated(self, **fields: object) -> Self:
        """Returns a copy in which `fields`, of any group, have other values, which are not validated."""
        groups = _in_groups(fields)
        return self.model_copy(
            update={name: getattr(self, name).model_copy(update=update) for name, update in groups.items()}
        )

    def engine_options(self, *, slots: int | None = None, threads: int = 1) -> EngineOptions:
        """Returns what the settings say of the engine; `slots` and `threads` come from a layout, where there is one."""
        engine = self.engine
        return EngineOptions(
            engine.engine,
            self.storage.cache_dir,
            engine.model_dir,
            runtime=engine.runtime,
            precision=engine.precision,
            prompt_seconds=engine.prompt_seconds,
            flow=engine.flow,
            flow_steps=engine.flow_steps,
            retakes=engine.retakes,
            trim_end=engine.trim_end,
            slots=slots or self.layout.slots or 1,
            threads=threads,
        )

    @property
    def keys_path(self) -> Path:
        """The file of API keys."""
        return self.access.keys_file or self.storage.data_dir / "keys.json"

    def environ(self, given: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Returns the variables from which `load` makes these settings again, beside those that are `given`.

        A secret that a credential holds stays there.
        """
        held = {variable(name) for name in _credentials(given)} - given.keys()
        values = {name: value for _, group in self for name, value in group} | {"run_dir": self.server.socket_dir}
        variables = {variable(name): _text(value) for name, value in values.items() if value not in (None, ())}
        return {name: value for name, value in variables.items() if name not in held}


_GROUPS = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, SettingsGroup)
}
"""The classes of the groups, by their names in Settings."""

_GROUP_OF = {field: name for name, group in _GROUPS.items() for field in group.model_fields}
"""The name of each field's group."""


def _credentials(environ: Mapping[str, str]) -> dict[str, object]:
    """The fields that have a credential, with their values. Raises SettingsError."""
    folder, prefix = environ.get(CREDENTIALS_DIRECTORY), PREFIX.lower()
    values: dict[str, object] = {}
    if not folder:
        return values
    for file in sorted(Path(folder).glob(f"{prefix}*")):
        field = file.name.removeprefix(prefix)
        if field == KEYS_FILE:
            values[field] = file
        elif field not in SECRET:
            known = ", ".join(prefix + name for name in sorted({KEYS_FILE, *SECRET}))
            raise SettingsError(f"the credential {file.name} is no setting; there are: {known}")
        else:
            try:
                values[field] = ",".join(file.read_text(encoding="utf-8").split())
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"cannot read the credential {file}: {error}") from error
    return values


class SettingRow(NamedTuple):
    """One setting, as its table shows it."""

    variable: str
    default: str
    """Empty where the setting is unset by default."""
    description: str


class SettingsTable(NamedTuple):
    """One group of settings, as `chorus settings` and docs/configuration.md show it."""

    title: str
    rows: tuple[SettingRow, ...]


def tables() -> tuple[SettingsTable, ...]:
    """Returns every group with its settings."""
    return tuple(
        SettingsTable(
            group.title,
            tuple(
                SettingRow(variable(name), _default(name, field), field.description or "")
                for name, field in group.model_fields.items()
            ),
        )
        for group in _GROUPS.values()
    )


def variable(name: str) -> str:
    """Returns the environment variable of a field."""
    return PREFIX + name.upper()


def _in_groups(values: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Sorts the values of fields into their groups."""
    groups: dict[str, dict[str, object]] = {}
    for name, value in values.items():
        groups.setdefault(_GROUP_OF[name], {})[name] = value
    return groups


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


def _describe(fault: ErrorDetails) -> str:
    if fault["type"] == "extra_forbidden":
        known = ", ".join(map(variable, _GROUP_OF))
        return f"{fault['loc'][0]} is no setting; there are: {known}"
    _, field, *_ = map(str, fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "bool_parsing":
        message = "Input should be true or false"
    got = "" if field in SECRET else f" (got {fault['input']!r})"
    return f"{variable(field)}: {message}{got}"
