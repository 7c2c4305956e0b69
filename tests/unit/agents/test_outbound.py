"""Whom agents may reach, and that blocking code cannot get around it."""

import socket
import threading
from collections.abc import Iterator
from contextvars import copy_context

import pytest

from agents.outbound import SETTING, BlockedError, Outbound, guarded, outbound
from streams.errors import OperatorError


@pytest.mark.parametrize(
    ("address", "permitted"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),  # metadata of most clouds
        ("168.63.129.16", False),  # of Azure, on a public number
        ("100.100.100.200", False),  # of Alibaba, in the shared space
        ("192.0.0.192", False),  # of Oracle
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("2002:7f00:1::", False),  # 6to4 of 127.0.0.1
        ("64:ff9b::7f00:1", False),  # NAT64 of 127.0.0.1
        ("::7f00:1", False),  # 127.0.0.1, as it was once written in IPv6
        ("::ffff:0:7f00:1", False),  # 127.0.0.1 where addresses are translated
        ("fec0::1", False),  # of the site
        ("64:ff9b::5db8:d822", True),
    ],
)
def test_only_public_addresses_are_reached(address: str, permitted: bool) -> None:
    assert Outbound().permits("example.org", address, 443) is permitted


@pytest.mark.parametrize(
    ("setting", "host", "address", "port", "permitted"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", 80, True),
        ("127.0.0.1", "localhost", "127.0.0.1", 80, True),
        ("127.0.0.1", "x", "127.0.0.2", 80, False),
        ("127.0.0.1:81", "127.0.0.1", "127.0.0.1", 80, False),
        ("127.0.0.1:80", "127.0.0.1", "127.0.0.1", 80, True),
        ("10.0.0.0/8", "x", "10.9.9.9", 80, True),
        ("10.0.0.0/8", "x", "::ffff:10.9.9.9", 80, True),
        ("10.0.0.0/8", "x", "11.9.9.9", 80, True),
        ("10.0.0.0/8", "x", "192.168.0.1", 80, False),
        ("[::1]:80", "x", "::1", 80, True),
        ("::1", "x", "::1", 80, True),
        ("localhost", "LOCALHOST.", "127.0.0.1", 80, True),
        ("localhost", "elsewhere", "127.0.0.1", 80, False),
        ("*.corp.example", "git.corp.example", "10.0.0.1", 80, True),
        ("*.corp.example", "corp.example", "10.0.0.1", 80, False),
        ("*.corp.example", "evilcorp.example", "10.0.0.1", 80, False),
        (" a.example:443 , localhost ", "a.example", "10.0.0.1", 443, True),
    ],
)
def test_an_operator_can_allow_more(
    setting: str, host: str, address: str, port: int, permitted: bool
) -> None:
    assert Outbound(setting).permits(host, address, port) is permitted


@pytest.mark.parametrize("setting", ["http://x", "a b", "10.0.0.0/99", "x:99999", "*", "a..b"])
def test_a_wrong_exception_is_named(setting: str) -> None:
    with pytest.raises(OperatorError, match=SETTING):
        Outbound(f"localhost,{setting}")


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    assert not outbound().permits("x", "10.0.0.1", 80)
    monkeypatch.setenv(SETTING, "10.0.0.1")
    assert outbound().permits("x", "10.0.0.1", 80)


@pytest.fixture
def port() -> Iterator[int]:
    """Of somebody who listens on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_blocking_code_is_stopped_where_it_connects(port: int) -> None:
    with guarded(Outbound()) as guard:
        for address in (("127.0.0.1", port), ("localhost", port)):
            with pytest.raises(BlockedError, match="not a public address"):
                socket.create_connection(address)
        with (
            socket.socket() as direct,
            pytest.raises(BlockedError, match="without a look at its address"),
        ):
            direct.connect(("localhost", port))
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
            pytest.raises(BlockedError),
        ):
            datagrams.sendto(b"x", ("127.0.0.1", port))
        with (
            socket.socket(socket.AF_UNIX) as local,
            pytest.raises(BlockedError, match="a socket of this machine"),
        ):
            local.connect("/run/anything")
    assert len(guard.refused) == 5
    socket.create_connection(("127.0.0.1", port)).close()  # outside everything is as it was


@pytest.mark.parametrize("setting", ["localhost", "127.0.0.1", "::1,127.0.0.0/8"])
def test_what_is_allowed_is_reached(setting: str, port: int) -> None:
    with guarded(Outbound(setting)) as guard:
        socket.create_connection(("localhost", port)).close()
    assert guard.refused == [] or setting == "127.0.0.1"  # ::1 was tried first


def test_threads_of_the_block_are_stopped_and_others_are_not(port: int) -> None:
    went: list[str] = []

    def connect(name: str) -> None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            went.append(name)
        except BlockedError:
            went.append(f"not {name}")

    with guarded(Outbound()):
        inside = threading.Thread(target=copy_context().run, args=(connect, "inside"))
        outside = threading.Thread(target=connect, args=("outside",))
        for thread in (inside, outside):
            thread.start()
            thread.join()
    assert went == ["not inside", "outside"]
