"""Every setting of CommandCenter, each read from `COMMANDCENTER_<NAME>`.

Order of precedence: a flag of the command line, the environment, the default. A wrong value is an
`OperatorError` that names the variable. Without authentication only loopback is listened on.
"""

import ipaddress
import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from streams.errors import OperatorError

PREFIX: Final = "COMMANDCENTER_"


def _default_data() -> Path:
    """The data directory of the XDG base directory specification."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "commandcenter"


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _bootstrap(value: str) -> str:
    for address in value.split(",") if value else ():
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{address!r} is not host:port (several are separated by commas)")
    return value


def _store(value: str) -> str:
    if value and urlsplit(value).scheme not in ("chdb", "clickhouse"):
        raise ValueError("must be chdb:///folder or clickhouse://user:password@host:8123/database")
    return value


def _loopback(value: str) -> str:
    if value != "localhost":
        try:
            loopback = ipaddress.ip_address(value).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ValueError(
                f"{value!r} is not a loopback address, and there is no authentication: "
                "whoever reaches the port could start workflows. Use 127.0.0.1, ::1 or localhost"
            )
    return value


def _outbound(value: str) -> str:
    if value:
        from agents.outbound import Outbound  # only who allows something needs it

        try:
            Outbound(value)
        except OperatorError as error:
            raise ValueError(str(error)) from error
    return value


def _llm_models(value: str) -> str:
    if value:
        from agents.llm_models import default_models

        try:
            default_models(value)
        except OperatorError as error:
            raise ValueError(str(error)) from error
    return value


def _llm_urls(value: str) -> str:
    if value:
        from agents.llm_models import urls

        try:
            urls(value)
        except OperatorError as error:
            raise ValueError(str(error)) from error
    return value


class Settings(BaseSettings):
    """All settings, validated and frozen; make one with `load`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )

    kafka: Annotated[str, AfterValidator(_bootstrap)] = Field(
        default="", description="Kafka to use, host:port[,host:port]; empty: an embedded one"
    )
    kafka_port: int = Field(
        default=9092, ge=0, le=65535, description="port of the embedded Kafka; 0: any free one"
    )
    clickhouse: Annotated[str, AfterValidator(_store)] = Field(
        default="", description="ClickHouse to use; empty: chDB in the data directory"
    )
    clickhouse_memory: int = Field(
        default=1024,
        ge=256,
        le=1_048_576,
        description="MiB of memory for the embedded ClickHouse; three eighths for a SQL query",
    )
    retention: int = Field(
        default=0,
        ge=0,
        le=36_500,
        description="days that runs stay in ClickHouse, from their start; 0: for ever",
    )
    data: Annotated[Path, AfterValidator(_absolute)] = Field(
        default_factory=_default_data, description="data directory"
    )
    host: Annotated[str, AfterValidator(_loopback)] = Field(
        default="127.0.0.1", description="address that the gateway listens on"
    )
    port: int = Field(default=8080, ge=1, le=65535, description="port of the gateway")
    sql_key: str = Field(
        default="",
        repr=False,
        description="key that clients of /clickhouse give as their password; empty: none is asked",
    )
    worker_metrics_port: int = Field(
        default=0, ge=0, le=65535, description="port of a worker's own /metrics; 0: none"
    )
    blobs: str = Field(
        default="", description="where big payloads go, a folder or URL; empty: data directory"
    )
    compute_rate: Decimal = Field(
        default=Decimal("0.01"),
        ge=0,
        lt=1_000_000,
        decimal_places=12,
        description="USD per minute at work, of agents without a rate of their own",
    )
    heartbeat: float = Field(
        default=5.0,
        ge=0.1,
        le=3600,
        description="seconds between a worker's signs of life; after three without one it is gone",
    )
    secrets: Annotated[Path, AfterValidator(_absolute)] | None = Field(
        default=None, description="folder with a file for each of the agents' secrets"
    )
    outbound_allow: Annotated[str, AfterValidator(_outbound)] = Field(
        default="",
        description="what agents may reach besides public addresses: names, addresses, networks",
    )
    llm_models: Annotated[str, AfterValidator(_llm_models)] = Field(
        default="", description="provider:model for steps that name none; several: fallbacks"
    )
    llm_urls: Annotated[str, AfterValidator(_llm_urls)] = Field(
        default="", description="servers that speak as OpenAI does: name=https://host/v1, …"
    )
    sandbox: Literal["process", "docker", "inline"] = Field(
        default="process", description="where heavy or untrusted actions run; inline: unconfined"
    )
    sandbox_image: str = Field(
        default="", description="image of the sandbox 'docker'; empty: Python's own slim one"
    )
    sandbox_readable: str = Field(
        default="",
        description="folders that inputs of actions may name, separated by ':'; "
        "empty: any but private ones",
    )
    advisories: Path | None = Field(
        default=None,
        description="folder or zip of OSV advisories for the security scanner; empty: a sample",
    )
    payload_limit: int = Field(
        default=64 * 1024 * 1024, ge=1024, description="bytes of the largest payload"
    )
    trigger_limit: int = Field(
        default=1024 * 1024,
        ge=128 * 1024,  # events of the system's own travel there too, with 64 KiB of output
        le=4 * 1024 * 1024,
        description="bytes of an event that comes in, or of the context of a run",
    )
    run_events_limit: int = Field(default=200_000, ge=100, description="events of one run")
    run_depth_limit: int = Field(
        default=8, ge=1, le=100, description="how deep runs may start other runs"
    )
    fan_out_limit: int = Field(
        default=20_000, ge=1, le=100_000, description="items of one node with forEach"
    )
    nodes_limit: int = Field(default=1_000, ge=1, le=1_000, description="nodes of a workflow")
    definition_limit: int = Field(
        default=256 * 1024,
        ge=1024,
        le=1024 * 1024,  # the body of a request that publishes one may have no more
        description="bytes of a workflow definition",
    )
    partitions: int = Field(
        default=4, ge=1, le=1024, description="partitions of each topic when it is created"
    )

    @classmethod
    def load(cls, **flags: object) -> "Settings":
        """Read the environment, with the given flags over it (None: the flag was not given).

        Raises:
            OperatorError: Names each variable with a wrong value, and what is wrong with it.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            faults = []
            for fault in error.errors(include_url=False):
                name = str(fault["loc"][0])
                text = fault["msg"].removeprefix("Value error, ")
                faults.append(
                    f"{_label(name, given)}: {text} (got {_masked(str(fault['input']))!r})"
                )
            raise OperatorError("Wrong settings. " + "; ".join(faults)) from error

    @property
    def blob_url(self) -> str:
        """Where big payloads are kept: the data directory if nothing else was set."""
        return self.blobs or str(self.data / "blobs")

    @property
    def store(self) -> str:
        """The ClickHouse address, chDB's folder in the data directory if none was set."""
        return self.clickhouse or f"chdb://{self.data / 'clickhouse'}"

    @property
    def store_memory(self) -> int:
        """Bytes that the store may take."""
        return self.clickhouse_memory * 1024 * 1024


_KEYS: Final = frozenset({"sql_key"})


class SettingLine(NamedTuple):
    """One setting as `doctor` prints it; passwords are masked."""

    variable: str
    value: str
    source: Literal["default", "environment", "flag"]
    description: str


def setting_lines(
    settings: Settings, flags: Mapping[str, object], environ: Mapping[str, str] = os.environ
) -> list[SettingLine]:
    """Every setting with its value and where that came from, in the order of declaration."""
    lines = []
    for name, field in Settings.model_fields.items():
        variable = PREFIX + name.upper()
        source: Literal["default", "environment", "flag"] = "default"
        if flags.get(name) is not None:
            source = "flag"
        elif environ.get(variable):
            source = "environment"
        value = _masked(str(getattr(settings, name)))
        if name in _KEYS:
            value = value and "***"
        lines.append(SettingLine(variable, value, source, field.description or ""))
    return lines


def _label(name: str, flags: Mapping[str, object]) -> str:
    variable = PREFIX + name.upper()
    return f"--{name.replace('_', '-')} (or {variable})" if name in flags else variable


def _masked(value: str) -> str:
    parts = urlsplit(value)
    if parts.password is None:
        return value
    return value.replace(f":{parts.password}@", ":***@", 1)
