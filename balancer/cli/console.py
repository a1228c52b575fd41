"""Shared by all commands: exit codes, the options for a running server, requests to it, messages and errors."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import httpx
import typer
from rich.console import Console

EXIT_REFUSED = 1
"""The server answered with an error, or the command cannot do what was asked for."""
EXIT_UNREACHABLE = 3
"""No server answered. (2 means a wrong command line.)"""

LOCAL_URL = "http://127.0.0.1:5000"
"""Where `chorus serve` listens by default."""

messages = Console(stderr=True)
"""Standard error, for messages to people; results go to standard output."""

Url = Annotated[str, typer.Option(envvar="CHORUS_URL", help="Address of the running server.")]
ApiKey = Annotated[str, typer.Option(envvar="CHORUS_API_KEY", help="API key, if the server requires one.")]


def tell(message: str, style: str | None = None) -> None:
    """Prints a message on standard error unchanged, without markup or added line breaks."""
    messages.print(message, style=style, markup=False, highlight=False, soft_wrap=True)


def fail(message: str, code: int = EXIT_REFUSED) -> NoReturn:
    """Prints an error and ends the command with that exit code."""
    tell(f"chorus: {message}", style="red")
    raise typer.Exit(code)


class RefusedError(Exception):
    """The server answered with an error that the command can do something about; `code` is the error's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def request(
    method: str,
    url: str,
    path: str,
    api_key: str,
    *,
    accepted: tuple[int, ...] = (200,),
    expected: Collection[str] = (),
    json: object = None,
) -> httpx.Response:
    """Sends one request to the server at `url` and returns the response.

    Ends the command if no server answers or the status is not in `accepted`. Raises RefusedError for an error whose
    code is in `expected`, BadParameter if the URL, the text or the API key cannot be sent.
    """
    with _errors_told(url):
        response = httpx.request(method, url.rstrip("/") + path, headers=_headers(api_key), json=json, timeout=None)
    if response.status_code not in accepted:
        _refuse(response, expected)
    return response


@contextmanager
def streamed(
    method: str, url: str, path: str, api_key: str, *, expected: Collection[str] = (), json: object = None
) -> Iterator[Iterator[bytes]]:
    """The pieces of a response's body as they come. Ends the command as `request`, and if the response breaks off.

    Raises as `request`.
    """
    with (
        _errors_told(url),
        httpx.stream(method, url.rstrip("/") + path, headers=_headers(api_key), json=json, timeout=None) as response,
    ):
        if response.status_code != 200:
            response.read()
            _refuse(response, expected)
        yield response.iter_raw()


def _headers(api_key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


@contextmanager
def _errors_told(url: str) -> Iterator[None]:
    """A block with a request to the server at `url`."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise typer.BadParameter(f"--url {url!r} is not a URL such as {LOCAL_URL}: {error}") from error
    except (UnicodeEncodeError, httpx.LocalProtocolError) as error:
        raise typer.BadParameter("the text must be UTF-8, and an API key printable ASCII") from error
    except httpx.RemoteProtocolError as error:
        fail(f"{url} broke its answer off ({error}); its log says why")
    except httpx.HTTPError as error:
        fail(
            f"no answer from {url} ({error}); is the server running? Start it with scripts/serve",
            EXIT_UNREACHABLE,
        )


def _refuse(response: httpx.Response, expected: Collection[str]) -> NoReturn:
    message = _error_message(response)
    try:
        code = response.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        code = None
    if code in expected:
        raise RefusedError(str(code), message)
    fail(message)


def _error_message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.url} answered {response.status_code}; is that a Chorus server?"
