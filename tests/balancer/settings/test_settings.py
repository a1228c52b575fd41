from __future__ import annotations

import json
import string
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.runtime.repository import REPOSITORY
from balancer.settings.settings import OTHER_VARIABLES, Settings, SettingsError, tables, variable
from worker.cards import Runtime
from worker.precision import Precision

KEY = "0123456789abcdef"
SECRETS = ("hunter2", "pässword-of-the-operator", f"{KEY}\u00e9", f"{KEY}\x07", f"{KEY},hunter2")


def load(**variables: str) -> Settings:
    return Settings.load({variable(name): value for name, value in variables.items()})


def fields(settings: Settings) -> dict[str, object]:
    """The settings of all groups."""
    return {name: value for _, group in settings for name, value in group}


def fault(**variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**variables)
    return str(caught.value)


# Loading


def test_without_variables_there_are_the_defaults() -> None:
    settings = Settings.load({})
    assert settings == Settings()
    assert (settings.server.host, settings.server.port, settings.server.run_dir) == ("127.0.0.1", 5000, None)
    engine, layout = settings.engine, settings.layout
    assert (engine.engine, engine.runtime, engine.precision) == ("hibari", Runtime.BATCHED, Precision.FP32)
    assert (layout.workers, layout.threads, layout.cores, layout.slots) == (None, None, None, None)
    assert settings.storage.voices_dir == REPOSITORY / "voices"
    assert (settings.engine.model_dir, settings.engine.model_revision) == (None, None)
    assert settings.storage.cache_dir == Path.home() / ".cache" / "chorus"


def test_only_the_given_mapping_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHORUS_PORT", "1234")
    assert Settings.load({}).server.port == 5000
    assert Settings.load().server.port == 1234


def test_other_variables_are_ignored() -> None:
    others = dict.fromkeys(OTHER_VARIABLES, "anything") | {"PORT": "x", "XCHORUS_PORT": "x", "CHORUSPORT": "x"}
    assert Settings.load(others) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("host", "::", "::"),
        ("port", "8080", 8080),
        ("workers", "3", 3),
        ("slots", "16", 16),
        ("runtime", "stock", Runtime.STOCK),
        ("precision", "int8", Precision.INT8),
        ("cores", "0-1;2-3,8", "0-1;2-3,8"),
        ("model_dir", "/srv/weights", Path("/srv/weights")),
        ("model_dir", "~/weights", Path.home() / "weights"),
        ("model_revision", "main", "main"),
        ("cache_dir", "/var/cache/chorus", Path("/var/cache/chorus")),
        ("cache_dir", "~/cache", Path.home() / "cache"),
        ("voices_dir", "/srv/my voices", Path("/srv/my voices")),
        ("run_dir", "/run/chorus", Path("/run/chorus")),
        ("log_level", "debug", "debug"),
        ("recovery_seconds", "0", 0.0),
        ("request_timeout", "1.5", 1.5),
    ],
)
def test_a_variable_sets_its_field(name: str, text: str, value: object) -> None:
    assert fields(load(**{name: text}))[name] == value


@pytest.mark.parametrize("text", ["false", "False", "0", "no", "off", ""])
def test_false_is_false(text: str) -> None:
    assert load(allow_anonymous=text).access.allow_anonymous is False


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "on"])
def test_true_is_true(text: str) -> None:
    assert load(allow_anonymous=text).access.allow_anonymous is True


@pytest.mark.parametrize("name", fields(Settings()))
def test_an_empty_variable_counts_as_unset(name: str) -> None:
    assert load(**{name: ""}) == Settings()


def test_origins_are_separated_by_commas() -> None:
    assert load().access.allowed_origins == frozenset()
    assert load(cors_origins="*").access.allowed_origins == {"*"}
    origins = "https://page.example, http://localhost:3000,capacitor://localhost,,http://[::1]:8080"
    assert load(cors_origins=origins).access.allowed_origins == {
        "https://page.example",
        "http://localhost:3000",
        "capacitor://localhost",
        "http://[::1]:8080",
    }


def test_keys_are_separated_by_commas() -> None:
    keys = load(api_keys=f" {KEY}a, {KEY}b ,,").access.api_keys
    assert [key.get_secret_value() for key in keys] == [f"{KEY}a", f"{KEY}b"]


def test_overrides_take_precedence_over_variables_unless_they_are_none() -> None:
    settings = Settings.load({"CHORUS_PORT": "1", "CHORUS_WORKERS": "2"}, port=3, workers=None, threads=None)
    assert (settings.server.port, settings.layout.workers, settings.layout.threads) == (3, 2, None)


def test_an_override_replaces_a_bad_variable() -> None:
    assert Settings.load({"CHORUS_PORT": "bad"}, port=3).server.port == 3


def test_relative_paths_count_from_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(voices_dir="voices", run_dir="run", model_dir="model", cache_dir="cache")
    monkeypatch.chdir("/")
    assert (settings.storage.voices_dir, settings.server.run_dir) == (tmp_path / "voices", tmp_path / "run")
    assert (settings.engine.model_dir, settings.storage.cache_dir) == (tmp_path / "model", tmp_path / "cache")
    assert settings.server.socket_dir == tmp_path / "run"


def test_the_cache_directory_follows_its_variables() -> None:
    caches = {"XDG_CACHE_HOME": "/var/caches"}
    assert Settings.load(caches).storage.cache_dir == Path("/var/caches/chorus")
    assert Settings.load(caches | {"CHORUS_CACHE_DIR": "/own"}).storage.cache_dir == Path("/own")
    assert Settings.load(caches, cache_dir=Path("/mine")).storage.cache_dir == Path("/mine")
    for ignored in ("", "relative"):
        assert Settings.load({"XDG_CACHE_HOME": ignored}) == Settings()


def test_an_unknown_home_directory() -> None:
    assert fault(model_dir="~nobody-of-that-name/weights").startswith("CHORUS_MODEL_DIR: the home directory")


def test_two_ports_have_different_socket_directories() -> None:
    assert load(port="1").server.socket_dir != load(port="2").server.socket_dir
    assert load(port="1").server.socket_dir.is_absolute()


# Errors


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("port", "abc", "valid integer"),
        ("port", "5000.5", "valid integer"),
        ("port", "0", "greater than or equal to 1"),
        ("port", "65536", "less than or equal to 65535"),
        ("allow_anonymous", "maybe", "true or false"),
        ("engine", "nope", "there are: chatterbox, hibari"),
        ("workers", "two", "valid integer"),
        ("workers", "0", "greater than or equal to 1"),
        ("workers", "1025", "less than or equal to 1024"),
        ("threads", "-1", "greater than or equal to 1"),
        ("threads", "257", "less than or equal to 256"),
        ("slots", "0", "greater than or equal to 1"),
        ("slots", "65", "less than or equal to 64"),
        ("runtime", "fast", "'batched' or 'stock'"),
        ("precision", "fp16", "'fp32', 'bf16' or 'int8'"),
        ("cores", "a-b", "write CPUs like 0-1,16"),
        ("cores", "0;;1", "write CPUs like 0-1,16"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("max_text_characters", "0", "greater than or equal to 1"),
        ("max_text_characters", "1000001", "less than or equal to 1000000"),
        ("max_body_bytes", "1023", "greater than or equal to 1024"),
        ("queue_limit", "0", "greater than or equal to 1"),
        ("request_timeout", "0", "greater than 0"),
        ("request_timeout", "nan", "greater than 0"),
        ("recovery_seconds", "-1", "greater than or equal to 0"),
        ("recovery_seconds", "nan", "greater than or equal to 0"),
        ("probe_seconds", "0", "greater than 0"),
        ("probe_seconds", "61", "less than or equal to 60"),
        ("probe_timeout", "never", "valid number"),
        ("probe_timeout", "nan", "less than or equal to 60"),
        ("probe_failures", "0", "greater than or equal to 1"),
        ("stop_seconds", "0.5", "valid integer"),
        ("stop_seconds", "0", "greater than or equal to 1"),
    ],
)
def test_the_error_of_a_bad_value_names_the_variable_and_the_accepted_values(
    name: str, text: str, accepted: str
) -> None:
    message = fault(**{name: text})
    assert message.startswith(f"{variable(name)}: ")
    assert accepted in message
    assert f"(got {text!r})" in message
    assert "Value error" not in message


def test_every_error_has_a_line() -> None:
    lines = fault(port="x", engine="y", prot="1").splitlines()
    assert [line.split(" ")[0].rstrip(":") for line in lines] == ["CHORUS_PORT", "CHORUS_ENGINE", "CHORUS_PROT"]


@pytest.mark.parametrize("name", ["CHORUS_PROT", "CHORUS_port", "CHORUS_Port", "CHORUS_", "CHORUS_SOCKETS"])
def test_the_error_of_an_unknown_variable_names_it(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({name: "5001"})
    message = str(caught.value)
    assert message.startswith(f"{name} is no setting; there are: ")
    assert all(variable(field) in message for field in fields(Settings()))


def test_the_error_of_a_bad_override_names_its_variable() -> None:
    with pytest.raises(SettingsError, match=r"CHORUS_PORT.*65535.*99999"):
        Settings.load({}, port=99_999)
    with pytest.raises(SettingsError, match="CHORUS_HOST"):
        Settings.load({}, host="")


# Keys


@pytest.mark.parametrize("text", SECRETS)
def test_a_bad_key_is_never_shown(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(api_keys=text)
    message = str(caught.value)
    assert message.startswith("CHORUS_API_KEYS: ")
    assert "16 characters" in message
    assert "openssl rand" in message
    trace = "".join(traceback.format_exception(caught.value))
    for part in text.split(","):
        assert part not in message
        assert part not in trace
        assert repr(part)[1:-1] not in trace


def test_a_variable_that_is_misspelt_does_not_show_its_key() -> None:
    assert KEY not in fault(api_kyes=KEY)


def test_keys_are_not_shown_by_repr() -> None:
    settings = load(api_keys=KEY)
    assert KEY not in repr(settings)
    assert KEY not in str(settings)
    assert KEY not in settings.model_dump_json()


# Loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "0:0:0:0:0:0:0:1", "localhost"])
def test_loopback(host: str) -> None:
    assert load(host=host).server.loopback


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "::",
        "128.0.0.1",
        "126.255.255.255",
        "192.168.0.1",
        "::2",
        "127.1",
        "localhost.example",
    ],
)
def test_not_loopback(host: str) -> None:
    assert not load(host=host).server.loopback


# Round trip


def _paths() -> st.SearchStrategy[Path]:
    names = st.text(string.ascii_letters + string.digits + " -_.%", min_size=1, max_size=10)
    parts = st.lists(names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3)
    return parts.map(lambda parts: Path("/", *parts))


def _numbers(least: float, most: float = 1e9) -> st.SearchStrategy[float]:
    return st.floats(least, most)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "host": st.sampled_from(["::", "0.0.0.0", "localhost"]),
            "port": st.integers(1, 65535),
            "api_keys": st.lists(
                st.text(string.ascii_letters + string.digits + "%;'\"$", min_size=16, max_size=40), max_size=3
            ).map(tuple),
            "allow_anonymous": st.booleans(),
            "workers": st.none() | st.integers(1, 1024),
            "threads": st.none() | st.integers(1, 256),
            "cores": st.none() | st.sampled_from(["0", "0-1;2-3", "0,4;1,5"]),
            "model_dir": st.none() | _paths(),
            "model_revision": st.none() | st.sampled_from(["main", "a" * 40]),
            "cache_dir": _paths(),
            "voices_dir": _paths(),
            "run_dir": _paths(),
            "log_level": st.sampled_from(["debug", "info", "warning", "error"]),
            "max_text_characters": st.integers(1, 1_000_000),
            "max_job_text_characters": st.integers(1, 1_000_000),
            "max_body_bytes": st.integers(1024),
            "queue_limit": st.integers(1),
            "request_timeout": _numbers(1e-9) | st.just(float("inf")),
            "recovery_seconds": _numbers(0),
            "probe_seconds": _numbers(1e-9, 60),
            "probe_timeout": _numbers(1e-9, 60),
            "probe_failures": st.integers(1),
            "stop_seconds": st.integers(1),
        },
    )
)
def test_settings_survive_a_round_trip_through_the_environment(values: dict[str, object]) -> None:
    settings = Settings.load({}, **values)
    environ = settings.environ()
    # An unset run directory is exported as chosen, so that the balancer uses the same.
    assert Settings.load(environ) == settings.updated(run_dir=settings.server.socket_dir)
    assert Settings.load(environ).environ() == environ
    assert json.dumps(environ)  # text throughout


def test_unset_settings_are_not_exported() -> None:
    names = Settings().environ().keys()
    assert not names & {"CHORUS_WORKERS", "CHORUS_THREADS", "CHORUS_CORES", "CHORUS_API_KEYS", "CHORUS_MODEL_DIR"}
    assert names <= {variable(field) for field in fields(Settings())}


# Tables


def test_the_tables_have_every_setting_with_its_default_and_a_meaning() -> None:
    rows = {name: (default, meaning) for group in tables() for name, default, meaning in group.rows}
    assert set(rows) == {variable(field) for field in fields(Settings())}
    assert rows["CHORUS_PORT"] == ("5000", "Port to listen on.")
    assert rows["CHORUS_ALLOW_ANONYMOUS"][0] == "false"
    assert rows["CHORUS_CACHE_DIR"][0] == "~/.cache/chorus"
    assert all(not rows[name][0] for name in ("CHORUS_API_KEYS", "CHORUS_WORKERS", "CHORUS_RUN_DIR"))
    assert all(meaning.endswith(".") for _, meaning in rows.values())


def test_the_defaults_in_the_tables_are_the_defaults() -> None:
    variables = {name: default for group in tables() for name, default, _ in group.rows if name != "CHORUS_VOICES_DIR"}
    assert Settings.load(variables) == Settings()


# Storage, limits and webhooks


def test_the_data_directory_follows_its_variables() -> None:
    assert Settings.load({}).storage.data_dir == Path.home() / ".local/share/chorus"
    assert Settings.load({"XDG_DATA_HOME": "/data"}).storage.data_dir == Path("/data/chorus")
    assert Settings.load({"XDG_DATA_HOME": "/data", "CHORUS_DATA_DIR": "/mine"}).keys_path == Path("/mine/keys.json")
    assert load(keys_file="/etc/chorus/keys.json").keys_path == Path("/etc/chorus/keys.json")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cors_origins", "page.example", "'page.example' is no origin: write a scheme, a host"),
        ("cors_origins", "null", "'null' is no origin: write a scheme, a host"),
        ("cors_origins", "https://*.page.example", "without patterns"),
        ("cors_origins", "https://bücher.example", "a host in ASCII"),
        ("cors_origins", "https://user@page.example", "is no origin"),
        ("cors_origins", "https://page.example:port", "is no origin"),
        ("cors_origins", "https://a.example, https://B.example/", "write https://b.example"),
        ("cors_origins", "https://page.example:443", "write https://page.example"),
        ("cors_origins", "http://[::1]:80/x?y", "write http://[::1]"),
        ("cors_origins", "*, https://page.example", "`*` is every origin; write it alone"),
        ("link_secret", "too short", "at least 32 bytes; make one with `openssl rand -hex 32`"),
        ("trusted_proxies", "10.0.0.0/8,proxy", "does not appear to be an IPv4 or IPv6 network"),
        ("redis_url", "localhost:6379", "redis://host:6379/0"),
        ("redis_url", "redis:///0", "redis://host:6379/0"),
        ("webhook_secret", "c2hvcnQ=", "24 to 64 bytes in base64"),
        ("webhook_secret", "not base64 at all, and rather long", "24 to 64 bytes in base64"),
        ("public_url", "speech.example.org", "CHORUS_PUBLIC_URL"),
        ("api_keys", "sha256:abc", "64 hexadecimal digits"),
        ("rate_mode", "drop", "'reject' or 'shape'"),
        ("rate_requests_per_minute", "0", "CHORUS_RATE_REQUESTS_PER_MINUTE"),
        ("cache_mib", "-1", "CHORUS_CACHE_MIB"),
    ],
)
def test_the_message_of_an_invalid_value(name: str, text: str, message: str) -> None:
    assert message in fault(**{name: text})


@pytest.mark.parametrize("name", ["link_secret", "redis_url", "webhook_secret"])
def test_no_message_repeats_a_secret(name: str) -> None:
    assert "hunter2" not in fault(**{name: "hunter2"})


def test_secrets_are_passed_on_to_the_balancer() -> None:
    given = {
        "CHORUS_REDIS_URL": "rediss://user:hunter2@redis.example.org:6380/1",
        "CHORUS_WEBHOOK_SECRET": "whsec_" + "A" * 32,
        "CHORUS_LINK_SECRET": "hunter2" * 5,
    }
    settings = Settings.load(given)
    assert settings.environ().items() >= given.items()
    assert "hunter2" not in repr(settings)
    redis_url = Settings.load(settings.environ()).storage.redis_url
    assert redis_url is not None
    assert redis_url.get_secret_value() == given["CHORUS_REDIS_URL"]


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """A folder of credentials, as systemd makes one."""
    (tmp_path / "chorus_api_keys").write_text(f"{KEY}\n{KEY[::-1]}\n")
    (tmp_path / "chorus_redis_url").write_text("redis://:secret@host\n")
    (tmp_path / "chorus_keys_file").write_text("[]")
    (tmp_path / "other").write_text("of another program")
    return tmp_path


def test_secrets_may_be_credentials(credentials: Path) -> None:
    settings = Settings.load({"CREDENTIALS_DIRECTORY": str(credentials)})
    assert [key.get_secret_value() for key in settings.access.api_keys] == [KEY, KEY[::-1]]
    assert settings.storage.redis_url is not None
    assert settings.storage.redis_url.get_secret_value() == "redis://:secret@host"
    assert settings.keys_path == credentials / "chorus_keys_file"


def test_a_variable_takes_precedence_over_a_credential(credentials: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(credentials), "CHORUS_REDIS_URL": "redis://other"}
    settings = Settings.load(environ)
    assert settings.storage.redis_url is not None
    assert settings.storage.redis_url.get_secret_value() == "redis://other"
    assert settings.environ(environ)["CHORUS_REDIS_URL"] == "redis://other"


def test_a_credential_is_not_passed_on_as_a_variable(credentials: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    settings = Settings.load(environ)
    passed_on = settings.environ(environ)
    assert not {"CHORUS_API_KEYS", "CHORUS_REDIS_URL", "CHORUS_KEYS_FILE"} & passed_on.keys()
    again = Settings.load(environ | passed_on)
    assert (again.access, again.storage) == (settings.access, settings.storage)


def test_a_credential_that_is_no_secret_setting_is_refused_by_name(credentials: Path) -> None:
    (credentials / "chorus_redis").write_text("redis://:secret@host")
    with pytest.raises(SettingsError, match="the credential chorus_redis is no setting") as error:
        Settings.load({"CREDENTIALS_DIRECTORY": str(credentials)})
    assert "secret@" not in str(error.value)
