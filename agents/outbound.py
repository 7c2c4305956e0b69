"""Whom agents may reach: public addresses, and what the operator allows besides.

Rules:
- What counts is the address that is connected to. A name is looked up once, and the very address
  that was judged is used, so a name that changes its mind (DNS rebinding) gains nothing. Every
  redirect is a new connection, and judged like the first.
- An address inside another one (IPv4 in IPv6, 6to4, NAT64) is judged as well.
- `COMMANDCENTER_OUTBOUND_ALLOW` lists exceptions, separated by commas: a name, `*.name` for all
  names below it, an address, or a network; `:port` after it allows that port only.

Clients of asyncio ask `Outbound` themselves (`agents/http_client.py`). For blocking code of others
there is `guarded`: whatever is connected to in it, by whatever library, is judged in the moment of
connecting. Python's audit events tell of it.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple

from agents.errors import PermanentError
from streams.errors import OperatorError

SETTING: Final = "COMMANDCENTER_OUTBOUND_ALLOW"

_NAME: Final = re.compile(
    r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*"
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
# Public by number, or to some versions of Python; but what answers there is the cloud or network
# that the machine stands in.
_NEARBY: Final = tuple(
    ip_network(each)
    for each in (
        "168.63.129.16/32",
        "192.0.0.0/24",
        "64:ff9b:1::/48",
        "::/96",
        "::ffff:0:0:0/96",
        "fec0::/10",
    )
)

_CONNECTING: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})

Address = IPv4Address | IPv6Address


class BlockedError(PermanentError, OSError):
    """The request would have reached what it must not; nothing was sent.

    To code that connects it is an address that cannot be had: it closes its socket.
    """


class _Exception(NamedTuple):
    """One entry of the setting: a network, or a name (with a leading dot: all below it)."""

    network: Any
    name: str
    port: int | None

    def covers(self, host: str, address: Address, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return address in self.network
        return host == self.name or (self.name.startswith(".") and host.endswith(self.name))


class Outbound:
    """The judge of addresses; `exceptions` is the text of the setting.

    Raises:
        OperatorError: an entry is no name, address or network.
    """

    def __init__(self, exceptions: str = "") -> None:
        entries = (each.strip() for each in exceptions.split(","))
        self._exceptions = tuple(_exception(each) for each in entries if each)

    def permits(self, host: str, address: str, port: int) -> bool:
        """Whether `address`, to which the name `host` led, may be connected to."""
        there = _unwrapped(ip_address(address))
        if is_public(there):
            return True
        name = host.rstrip(".").lower()
        return any(each.covers(name, there, port) for each in self._exceptions)

    def names(self, host: str, port: int) -> bool:
        """Whether an exception has this very name or address, so that somebody vouches for it."""
        name = host.rstrip(".").lower()
        try:
            there: Address = _unwrapped(ip_address(name.strip("[]")))
        except ValueError:
            there = IPv4Address(0)
        return any(each.covers(name, there, port) for each in self._exceptions)

    def judge(self, host: str, address: str, port: int) -> None:
        """Raise `BlockedError` unless it may be connected to."""
        if not self.permits(host, address, port):
            raise BlockedError(
                f"{host or address} is at {address}, which is not a public address; "
                f"an operator can allow it with {SETTING}"
            )


def is_public(address: Address) -> bool:
    """Whether anybody on the internet would reach the same machine there."""
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in network for network in _NEARBY)
    )


@cache
def _outbound(exceptions: str) -> Outbound:
    return Outbound(exceptions)


def outbound() -> Outbound:
    """As the environment of this process says."""
    return _outbound(os.environ.get(SETTING, ""))


class Guard:
    """What was refused in a `guarded` block."""

    def __init__(self, judge: Outbound) -> None:
        self.refused: list[BlockedError] = []
        self._judge = judge
        self._asked = ""

    def looked_up(self, host: object) -> None:
        """A name (or an address, which is its own name) is being resolved, to be connected to."""
        self._asked = host.decode(errors="replace") if isinstance(host, bytes) else str(host or "")

    def connects(self, address: object) -> None:
        """Raise `BlockedError` unless it may."""
        try:
            self._judged(address)
        except BlockedError as error:
            self.refused.append(error)
            raise

    def _judged(self, address: object) -> None:
        if not isinstance(address, tuple) or not isinstance(address[0], str):
            raise BlockedError("a socket of this machine was asked for; only hosts may be reached")
        host, port = address[0], int(address[1])
        try:
            ip_address(host)
        except ValueError:
            # Whoever connects by name resolves it out of sight.
            if not self._judge.names(host, port):
                text = f"{host} was to be reached without a look at its address"
                raise BlockedError(f"{text}; an operator can allow it with {SETTING}") from None
            return
        self._judge.judge(self._asked, host, port)


_guard: ContextVar[Guard | None] = ContextVar("outbound_guard", default=None)


@contextmanager
def guarded(judge: Outbound) -> Iterator[Guard]:
    """Judge every connection that blocking code makes in here, and in threads with its context.

    What is refused raises `BlockedError` where it connects. Libraries may swallow that: look at
    `refused` afterwards.
    """
    _listen()
    guard = Guard(judge)
    token = _guard.set(guard)
    try:
        yield guard
    finally:
        _guard.reset(token)


@cache
def _listen() -> None:
    """Hear of connections; there is no way to stop it, so it is done when first needed."""
    present = _guard.get

    def hear(event: str, args: tuple[Any, ...]) -> None:
        if not event.startswith("socket."):
            return
        guard = present()
        if guard is None:
            return
        if event == "socket.getaddrinfo":
            guard.looked_up(args[0])
        elif event in _CONNECTING and args[1] is not None:
            guard.connects(args[1])

    sys.addaudithook(hear)


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for; itself where it stands for none."""
    if isinstance(address, IPv4Address):
        return address
    inside = address.ipv4_mapped or address.sixtofour
    if inside is None and address in _NAT64:
        inside = IPv4Address(int(address) & 0xFFFF_FFFF)
    return inside or address


def _exception(entry: str) -> _Exception:
    text, port = entry.lower(), None
    network = _network(text)
    if network is None:
        before, colon, after = text.rpartition(":")
        if colon and after.isdigit() and 0 < int(after) < 65536:
            text, port = before, int(after)
            network = _network(text.strip("[]"))
    if network is not None:
        return _Exception(network, "", port)
    name = text.rstrip(".")
    if not _NAME.fullmatch(name):
        raise OperatorError(
            f"{SETTING}: {entry!r} is no name, *.name, address or network, with or without :port"
        )
    return _Exception(None, name.removeprefix("*"), port)


def _network(text: str) -> Any:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
