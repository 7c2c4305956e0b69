"""Secrets by name: from the environment, or from files as container platforms mount them.

A value stands in no log, no `repr`, no failure and no output: what a task has asked for is known
here, and cut out of what it says.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec

from streams.errors import AgentError

VARIABLE: Final = "COMMANDCENTER_SECRET_"
FOLDER: Final = "COMMANDCENTER_SECRETS"
HIDDEN: Final = "***"

_SHORTEST: Final = 6
"""What is shorter is not searched for: `yes` or `8080` stand in texts that give nothing away."""


class SecretSource(Protocol):
    """Where the values come from."""

    def find(self, name: str) -> str | None:
        """The value; None where there is none."""


class GivenSecrets:
    """Values at hand; for tests."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def find(self, name: str) -> str | None:
        """The value; None where there is none."""
        return self._values.get(name)

    def __repr__(self) -> str:
        return f"GivenSecrets({', '.join(sorted(self._values))})"


class WorkerSecrets:
    """What the environment of a worker has, and else a folder with one file for each secret.

    Files are read whenever they are asked for, so that a changed one counts at once. One newline at
    the end does not belong to the value.
    """

    def __init__(self, environ: Mapping[str, str], folder: Path | None = None) -> None:
        self._environ = environ
        self._folder = folder

    def find(self, name: str) -> str | None:
        """The value; None where there is none, `AgentError` where it cannot be read."""
        value = self._environ.get(VARIABLE + name)
        if value is not None or self._folder is None:
            return value
        try:
            return (self._folder / name).read_text(encoding="utf-8").removesuffix("\n")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise AgentError(f"the secret {name} in {self._folder}: {reason}") from error

    def __repr__(self) -> str:
        return f"WorkerSecrets(folder={self._folder})"


class _Only:
    """Some of the secrets of another source."""

    def __init__(self, source: SecretSource, names: frozenset[str]) -> None:
        self._source = source
        self._names = names

    def find(self, name: str) -> str | None:
        return self._source.find(name) if name in self._names else None


class Secrets:
    """The secrets that one attempt asks for: `secrets["API_TOKEN"]`."""

    __slots__ = ("_asked", "_source")

    def __init__(self, source: SecretSource | Mapping[str, str] | None = None) -> None:
        """`source`: a mapping does for tests."""
        if source is None or isinstance(source, Mapping):
            source = GivenSecrets(source or {})
        self._source: SecretSource = source
        self._asked: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        """The value. Raises `AgentError`, which says how to give it, where there is none."""
        if not (name.isascii() and name.replace("_", "").isalnum() and name == name.upper()):
            raise AgentError(f"{name!r} names no secret; names are capital letters, digits and '_'")
        value = self._source.find(name)
        if value is None:
            raise AgentError(
                f"there is no secret {name}; give the worker {VARIABLE}{name}, or a file {name} in"
                f" the folder that {FOLDER} names"
            )
        self._asked[name] = value
        return value

    def __contains__(self, name: str) -> bool:
        """Whether there is a secret of this name."""
        return self._source.find(name) is not None

    def only(self, names: Iterable[str]) -> "Secrets":
        """These alone; what is asked for there is hidden here as well."""
        made = Secrets(_Only(self._source, frozenset(names)))
        made._asked = self._asked
        return made

    @property
    def asked(self) -> frozenset[str]:
        """The names of those that were asked for."""
        return frozenset(self._asked)

    def hide(self, text: str) -> str:
        """The text without any value that was asked for."""
        for value in sorted(self._asked.values(), key=len, reverse=True):
            if len(value) >= _SHORTEST:
                text = text.replace(value, HIDDEN)
        return text

    def named_in(self, content: bytes) -> str | None:
        """The name of one that was asked for and stands in this JSON; None where none does."""
        for name, value in self._asked.items():
            if len(value) >= _SHORTEST and msgspec.json.encode(value)[1:-1] in content:
                return name
        return None

    def __repr__(self) -> str:
        return f"Secrets({', '.join(sorted(self._asked))})"
