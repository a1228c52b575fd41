import pytest

from balancer.redis.location import RedisLocation


def test_a_server() -> None:
    assert RedisLocation.parse("rediss://user:secret@host:6380/1") == RedisLocation("rediss://user:secret@host:6380/1")


def test_sentinels() -> None:
    location = RedisLocation.parse("rediss+sentinel://user:p%40ss@one:5000,two,[::1]:7/chorus/2?ssl_ca_certs=/ca.pem")
    assert location.sentinels == (("one", 5000), ("two", 26379), ("::1", 7))
    assert location.name == "chorus"
    assert location.url == "rediss://user:p%40ss@one:5000/2?ssl_ca_certs=/ca.pem"
    assert "ss@" not in repr(location)


def test_the_login_of_the_sentinels_is_theirs_alone() -> None:
    url = "redis+sentinel://:theirs@one/chorus?sentinel_password=a%26b+c&ssl_ca_certs=/ca.pem&sentinel_username=me"
    location = RedisLocation.parse(url)
    assert location.sentinel_login == {"username": "me", "password": "a&b c"}
    assert location.url == "redis://:theirs@one/0?ssl_ca_certs=/ca.pem"
    assert "a&b" not in repr(location)
    assert RedisLocation.parse("redis+sentinel://one/chorus?sentinel_password=x").url == "redis://one/0"


@pytest.mark.parametrize(
    "url",
    [
        "host:6379",
        "http://host",
        "redis://",
        "redis:///0",
        "redis+sentinel://host",
        "redis+sentinel:///name/0",
        "redis://host/0?sentinel_password=x",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        RedisLocation.parse(url)
