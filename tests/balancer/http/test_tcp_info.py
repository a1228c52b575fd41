from __future__ import annotations

import socket

from balancer.http.tcp_info import read_tcp_info
from tests.support.harness import wait_until


def test_the_state_of_a_connection_that_nobody_reads_from() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with server:
            server.sendall(b"x" * 1000)
            wait_until(lambda: (info := read_tcp_info(server)) is not None and info.bytes_acked >= 1000)
            info = read_tcp_info(server)
            assert info is not None
            assert info.open
            client.close()
            wait_until(lambda: (info := read_tcp_info(server)) is not None and not info.open)
        assert read_tcp_info(server) is None, "it is closed"


def test_another_kind_of_socket_has_none() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert read_tcp_info(one) is None
