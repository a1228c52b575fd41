"""What the commands share: exit codes, options for reaching a running server, how to ask it, speak and fail.

Called by `balancer.cli` and the modules of its subcommands.
"""

from __future__ import annotations

from typing import Annotated, NoReturn

import httpx
import typer
from rich.console import Console

EXIT_REFUSED = 1
"""The server answered, with an error; or what was asked for cannot be done."""
EXIT_UNREACHABLE = 3
"""Nobody answered. (2 is a wrong command line.)"""

LOCAL = "http://127.0.0.1:5000"
"""Where `chorus serve` listens unless told otherwise."""

messages = Console(stderr=True)
"""For people; results go to standard output."""

Url = Annotated[str, typer.Option(envvar="CHORUS_URL", help="Address of the running server.")]
ApiKey = Annotated[str, typer.Option(envvar="CHORUS_API_KEY", help="API key, where the server asks for one.")]


def tell(message: str, style: str | None = None) -> None:
    """Print a message on standard error as it is, without markup or line breaks of our own."""
    messages.print(message, style=style, markup=False, highlight=False, soft_wrap=True)


def fail(message: str, code: int = EXIT_REFUSED) -> NoReturn:
    """Say what went wrong, and end the command with that exit code."""
    tell(f"chorus: {message}", style="red")
    raise typer.Exit(code)


def ask(
    method: str, url: str, path: str, api_key: str, *, accepted: tuple[int, ...] = (200,), json: object = None
) -> httpx.Response:
    """Send one request to the server at `url`, and give its answer.

    Ends the command where nobody answers, or with a status that is not `accepted`; raises BadParameter where the
    request itself cannot be written.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = httpx.request(method, url.rstrip("/") + path, headers=headers, json=json, timeout=None)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise typer.BadParameter(f"--url {url!r} is no address such as {LOCAL}: {error}") from error
    except (UnicodeEncodeError, httpx.LocalProtocolError) as error:
        raise typer.BadParameter("the text must be UTF-8, an API key printable ASCII") from error
    except httpx.HTTPError as error:
        fail(
            f"no answer from {url} ({error}); is the server running? Start it with scripts/serve",
            EXIT_UNREACHABLE,
        )
    if answer.status_code not in accepted:
        fail(_message(answer))
    return answer


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.url} answered {answer.status_code}; is that a Chorus server?"
