from decimal import Decimal
from pathlib import Path

import pytest

from infra.settings import PREFIX, Settings, setting_lines
from streams.errors import OperatorError


def test_defaults_are_embedded_and_on_loopback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    settings = Settings.load()
    assert settings.model_dump() == {
        "kafka": "",
        "kafka_port": 9092,
        "clickhouse": "",
        "clickhouse_memory": 1024,
        "retention": 0,
        "data": tmp_path / "commandcenter",
        "host": "127.0.0.1",
        "port": 8080,
        "sql_key": "",
        "partitions": 4,
        "worker_metrics_port": 0,
        "blobs": "",
        "payload_limit": 64 * 1024 * 1024,
        "trigger_limit": 1024 * 1024,
        "run_events_limit": 200_000,
        "run_depth_limit": 8,
        "fan_out_limit": 20_000,
        "nodes_limit": 1_000,
        "definition_limit": 256 * 1024,
        "compute_rate": Decimal("0.01"),
        "secrets": None,
        "advisories": None,
        "outbound_allow": "",
        "llm_models": "",
        "llm_urls": "",
        "heartbeat": 5.0,
        "sandbox": "process",
        "sandbox_image": "",
        "sandbox_readable": "",
    }
    assert settings.blob_url == str(tmp_path / "commandcenter" / "blobs")
    assert settings.store == f"chdb://{tmp_path}/commandcenter/clickhouse"


def test_a_flag_beats_the_environment_which_beats_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"{PREFIX}PORT", "9001")
    monkeypatch.setenv(f"{PREFIX}PARTITIONS", "8")
    monkeypatch.setenv(f"{PREFIX}KAFKA", "")  # empty is unset
    flags = {"port": 9002, "data": None}
    settings = Settings.load(**flags)
    assert (settings.port, settings.partitions, settings.kafka) == (9002, 8, "")
    sources = {line.variable: line.source for line in setting_lines(settings, flags)}
    assert sources[f"{PREFIX}PORT"] == "flag"
    assert sources[f"{PREFIX}PARTITIONS"] == "environment"
    assert sources[f"{PREFIX}KAFKA"] == "default"
    assert sources[f"{PREFIX}DATA"] == "default"


def test_relative_and_home_paths_become_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert Settings.load(data="~/cc").data == Path("/home/ada/cc")
    assert Settings.load(data="cc").data == Path.cwd() / "cc"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("PORT", "eighty", "valid integer"),
        ("PORT", "70000", "less than or equal to 65535"),
        ("PARTITIONS", "0", "greater than or equal to 1"),
        ("KAFKA", "broker", "not host:port"),
        ("KAFKA", "a:9092,b:x", "'b:x' is not host:port"),
        ("CLICKHOUSE", "http://x", "clickhouse://"),
        ("HOST", "0.0.0.0", "no authentication"),
        ("LLM_MODELS", "gpt", "'gpt' is not provider:model"),
        ("LLM_URLS", "local=ftp://h", "'local' is not name=https"),
        ("OUTBOUND_ALLOW", "localhost, not a host", "'not a host' is no name"),
        ("HOST", "example.org", "not a loopback address"),
    ],
)
def test_a_wrong_value_names_its_variable(
    name: str, value: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(OperatorError) as caught:
        Settings.load()
    assert PREFIX + name in str(caught.value)
    assert text in str(caught.value)


def test_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}PORT", "x")
    with pytest.raises(OperatorError, match=r"COMMANDCENTER_PORT.*--partitions"):
        Settings.load(partitions=-1)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_hosts_are_accepted(host: str) -> None:
    assert Settings.load(host=host).host == host


def test_passwords_are_never_shown() -> None:
    settings = Settings.load(clickhouse="clickhouse://me:s3cret@db:8123/cc", sql_key="s3cret")
    shown = str(setting_lines(settings, {})) + repr(settings).partition("sql_key")[2]
    assert "clickhouse://me:***@db:8123/cc" in shown
    assert "s3cret" not in shown
    with pytest.raises(OperatorError) as caught:
        Settings.load(clickhouse="mysql://me:s3cret@db")
    assert "s3cret" not in str(caught.value)
