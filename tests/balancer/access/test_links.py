"""Signed links: what is signed, by whom, and for how long."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from balancer.access.api_keys import ApiKey, digest_of
from balancer.access.caller import Caller
from balancer.access.key_ring import KeyRing
from balancer.access.links import Links
from balancer.errors import LinkExpiredError, LinkInvalidError

SECRET = "a secret of more than thirty-two bytes"
KEY = "the-key-of-a-shop"
SHOP = Caller("shop", ApiKey(name="shop", digest=digest_of(KEY)))
ANYONE = Caller("192.0.2.1")
QUERY = [("text", "Hi & bye, Zoë/ü?"), ("format", "mp3")]

Query = list[tuple[str, str]]


class Clock:
    """Unix time that stands still."""

    now = 1_800_000_000.5

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def links(clock: Clock, *keys: str, secret: str | None = SECRET, folder: Path = Path("/nowhere")) -> Links:
    return Links(KeyRing(keys), secret, folder / "link.secret", clock)


def signed(maker: Links, caller: Caller = SHOP, seconds: int = 60) -> Query:
    text, _ = maker.sign(QUERY, caller, seconds)
    return parse_qsl(text, strict_parsing=True)


def test_a_link_is_its_makers(clock: Clock) -> None:
    signer = links(clock, "another-key-than-that", KEY).signer(signed(links(clock, KEY)))
    assert signer is not None
    assert signer.digest == digest_of(KEY)


def test_a_link_has_the_query_and_does_not_show_the_key(clock: Clock) -> None:
    text, expires = links(clock, KEY).sign(QUERY, SHOP, 60)
    assert expires == 1_800_000_060
    query = parse_qsl(text)
    assert query[:2] == QUERY
    assert [name for name, _ in query[2:]] == ["expires", "caller", "signature"]
    assert "shop" not in text
    assert digest_of(KEY)[:8] not in text


def test_a_link_without_a_key_is_anyones_until_keys_are_required(clock: Clock) -> None:
    query = signed(links(clock), ANYONE)
    assert links(clock).signer(query) is None
    with pytest.raises(LinkInvalidError, match="not valid any more"):
        links(clock, KEY).signer(query)


def test_the_order_of_the_fields_does_not_matter(clock: Clock) -> None:
    maker = links(clock, KEY)
    assert maker.signer(signed(maker)[::-1]) is not None


def test_a_link_expires(clock: Clock) -> None:
    maker = links(clock, KEY)
    query = signed(maker)
    clock.now = 1_800_000_059.9
    assert maker.signer(query) is not None
    clock.now = 1_800_000_060.0
    with pytest.raises(LinkExpiredError, match="expired at 2027-01-15T08:01:00"):
        maker.signer(query)


@pytest.mark.parametrize("field", ["text", "format", "expires", "caller", "signature"])
def test_an_altered_link_is_refused(clock: Clock, field: str) -> None:
    maker = links(clock, KEY)
    query = signed(maker)
    others = [pair for pair in query if pair[0] != field]
    altered: list[Query] = [
        others,
        [*others, (field, "9999999999")],
        [*query, (field, dict(query)[field])],
        [*query, ("speed", "4")],
        [(name.upper() if name == field else name, value) for name, value in query],
    ]
    for one in altered:
        with pytest.raises(LinkInvalidError, match="altered"):
            maker.signer(one)


def test_a_signature_may_be_anything(clock: Clock) -> None:
    for signature in ("", "é\ud7ff", "0" * 64):
        with pytest.raises(LinkInvalidError):
            links(clock).signer([("text", "Hi."), ("expires", "soon"), ("signature", signature)])


def test_fields_cannot_be_moved_into_each_other(clock: Clock) -> None:
    maker = links(clock, KEY)
    (_, text), (_, audio_format), *rest = signed(maker)
    with pytest.raises(LinkInvalidError):
        maker.signer([("text", f"{text}&format={audio_format}"), *rest])


def test_the_link_of_a_revoked_key_is_refused(clock: Clock) -> None:
    with pytest.raises(LinkInvalidError, match="API key that the link was made with is not valid any more"):
        links(clock, "another-key-than-that").signer(signed(links(clock, KEY)))


def test_hosts_with_one_secret_accept_each_others_links(clock: Clock, tmp_path: Path) -> None:
    query = signed(links(clock, KEY))
    assert links(clock, KEY).signer(query) is not None
    other = links(clock, KEY, secret=None, folder=tmp_path)
    other.open()
    with pytest.raises(LinkInvalidError):
        other.signer(query)


def test_a_secret_of_the_hosts_own_survives_a_restart(clock: Clock, tmp_path: Path) -> None:
    first, second = (links(clock, KEY, secret=None, folder=tmp_path) for _ in range(2))
    first.open()
    second.open()
    assert second.signer(signed(first)) is not None


def test_without_a_file_links_work_in_one_process(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "link.secret").write_text("short")
    first, second = (links(clock, KEY, secret=None, folder=tmp_path) for _ in range(2))
    first.open()
    assert "links work until this process ends" in caplog.text
    assert first.signer(signed(first)) is not None
    with pytest.raises(LinkInvalidError):
        second.signer(signed(first))
