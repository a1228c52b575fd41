"""Signed links to `GET /tts`: whoever has one may have its text spoken until it expires, as the caller who made it."""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote, urlencode

from balancer.access.api_keys import ApiKey
from balancer.access.caller import Caller
from balancer.access.key_ring import KeyRing
from balancer.access.link_secret import read_or_make_secret
from balancer.errors import LinkExpiredError, LinkInvalidError
from balancer.settings.access import MIN_SECRET_BYTES

log = logging.getLogger(__name__)

CALLER, EXPIRES, SIGNATURE = LINK_FIELDS = ("caller", "expires", "signature")
"""Fields of a link's query: who made it, where API keys are required; Unix time of its end; HMAC-SHA256."""

CALLER_DIGITS = 32
MAX_CALLERS = 100_000
"""API keys whose tag is remembered: more than a file has."""

Query = Sequence[tuple[str, str]]


class Links:
    """Signs queries, and finds who signed a query. `clock` is Unix time in seconds.

    The secret is `secret`, or else, once they are opened, that in the file.
    """

    def __init__(self, keys: KeyRing, secret: str | None, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._file = file if secret is None else None
        self._secret = secrets.token_bytes(MIN_SECRET_BYTES) if secret is None else secret.encode()
        self._clock = clock
        self._caller_tag = lru_cache(MAX_CALLERS)(self._make_caller_tag)

    def open(self) -> None:
        """Read the secret of this host, or make it. Without it, links work until the process ends. Blocks."""
        if self._file is None:
            return
        try:
            self._secret = read_or_make_secret(self._file)
        except (OSError, ValueError) as error:
            log.warning("signed links work until this process ends: their secret cannot be read: %s", error)

    def sign(self, query: Query, caller: Caller, seconds: int) -> tuple[str, int]:
        """The query string of a link that speaks `query` for `caller`, and the Unix time of its end."""
        expires = int(self._clock()) + seconds
        fields = [*query, (EXPIRES, str(expires))]
        if caller.key is not None:
            fields.append((CALLER, self._caller_tag(caller.key.identity)))
        fields.append((SIGNATURE, self._signature(fields)))
        return _encode(fields), expires

    def signer(self, query: Query) -> ApiKey | None:
        """The API key with which a link with this query was made; None if it was made without one.

        Raises LinkInvalidError, LinkExpiredError.
        """
        fields = dict(query)
        signature = fields.get(SIGNATURE, "")
        signed = [(name, value) for name, value in query if name != SIGNATURE]
        unaltered = hmac.compare_digest(signature.encode(), self._signature(signed).encode())
        if not unaltered or len(fields) != len(query):
            raise LinkInvalidError("the link was altered, or another server made it; have a new one made")
        if self._clock() >= int(fields[EXPIRES]):
            end = datetime.fromtimestamp(int(fields[EXPIRES]), UTC).isoformat()
            raise LinkExpiredError(f"the link expired at {end}; have a new one made")
        tag = fields.get(CALLER)
        if tag is None and not self._keys.key_required:
            return None
        for key in self._keys.keys:
            if self._caller_tag(key.identity) == tag:
                return key
        raise LinkInvalidError("the API key that the link was made with is not valid any more")

    def _make_caller_tag(self, identity: str) -> str:
        """Stands for an API key in its links. Without the secret, it tells nothing of the key."""
        return self._hmac(f"caller\n{identity}")[:CALLER_DIGITS]

    def _signature(self, fields: Query) -> str:
        """The signature of a query: the order of its fields, and how they are encoded, do not matter."""
        return self._hmac(f"link\n{_encode(sorted(fields))}")

    def _hmac(self, message: str) -> str:
        return hmac.new(self._secret, message.encode(), sha256).hexdigest()


def _encode(fields: Query) -> str:
    return urlencode(fields, quote_via=quote)
