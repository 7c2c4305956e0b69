import hashlib
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from infra import kafka_jars
from infra.kafka_jars import ensure_jars, jars_in, kafka_home
from streams.errors import OperatorError

CONTENT = {"alpha": b"the jar alpha", "beta": b"the jar beta"}


@pytest.fixture
def local_maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local Maven repository with two small jars, a lock file for them, and no network."""
    repository = tmp_path / "m2"
    lock = ["[metadata]"]
    for name, content in CONTENT.items():
        jar = repository / "org" / "example" / name / "1.0" / f"{name}-1.0.jar"
        jar.parent.mkdir(parents=True)
        jar.write_bytes(content)
        lock += [
            "[[dependencies]]",
            'groupId = "org.example"',
            f'artifactId = "{name}"',
            'version = "1.0"',
            f'sha256 = "{hashlib.sha256(content).hexdigest()}"',
        ]
    lock_file = tmp_path / "jgo.lock.toml"
    lock_file.write_text("\n".join(lock))
    monkeypatch.setattr(kafka_jars, "LOCK_FILE", lock_file)
    monkeypatch.setenv("M2_REPO", str(repository))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    return repository


def quiet() -> Console:
    return Console(file=io.StringIO(), width=400)


def told(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.usefixtures("local_maven")
def test_jars_are_fetched_once_and_the_user_is_told(tmp_path: Path) -> None:
    console = quiet()
    home = ensure_jars(console, cache=tmp_path / "cache")
    assert {jar.name: jar.read_bytes() for jar in jars_in(home)} == {
        "alpha-1.0.jar": CONTENT["alpha"],
        "beta-1.0.jar": CONTENT["beta"],
    }
    first, second = told(console).splitlines()
    assert first.startswith("Fetching Apache Kafka")
    assert "2 jars" in first
    assert second.startswith("Fetched Apache Kafka")

    again = quiet()
    assert ensure_jars(again, cache=tmp_path / "cache") == home
    assert told(again) == ""


def test_a_jar_that_is_not_the_locked_one_is_refused(local_maven: Path, tmp_path: Path) -> None:
    altered = local_maven / "org" / "example" / "beta" / "1.0" / "beta-1.0.jar"
    altered.write_bytes(b"something else")
    cache = tmp_path / "cache"
    with pytest.raises(OperatorError, match=r"beta-1\.0\.jar is not the file that was locked"):
        ensure_jars(quiet(), cache=cache)
    assert not kafka_home(cache).exists()


@pytest.mark.usefixtures("local_maven")
def test_what_a_killed_download_left_is_removed(tmp_path: Path) -> None:
    stale = tmp_path / "cache" / ".download-stale"
    (stale / "home").mkdir(parents=True)
    ensure_jars(quiet(), cache=tmp_path / "cache")
    assert not stale.exists()


def test_without_a_network_the_error_says_what_to_do(local_maven: Path, tmp_path: Path) -> None:
    (local_maven / "org" / "example" / "alpha" / "1.0" / "alpha-1.0.jar").unlink()
    with pytest.raises(OperatorError) as caught:
        ensure_jars(quiet(), cache=tmp_path / "cache")
    for advice in ("HTTPS_PROXY", "jgo.conf", "copy", "COMMANDCENTER_KAFKA", str(tmp_path)):
        assert advice in str(caught.value)


@pytest.mark.usefixtures("local_maven")
def test_concurrent_first_starts_fetch_once(tmp_path: Path) -> None:
    consoles = [quiet() for _ in range(4)]
    together = threading.Barrier(len(consoles))

    def start(console: Console) -> Path:
        together.wait()
        return ensure_jars(console, cache=tmp_path / "cache")

    with ThreadPoolExecutor(len(consoles)) as pool:
        homes = set(pool.map(start, consoles))
    assert len(homes) == 1
    assert sum("Fetched" in told(console) for console in consoles) == 1


@pytest.mark.usefixtures("local_maven")
def test_a_download_that_nobody_waits_for_ends(tmp_path: Path) -> None:
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(kafka_jars.DownloadStoppedError):
        ensure_jars(quiet(), cache=tmp_path / "cache", stopped=stopped)
    assert not kafka_home(tmp_path / "cache").exists()


def test_the_lock_pins_every_jar_and_names_no_host() -> None:
    text = kafka_jars.LOCK_FILE.read_text()
    assert text.count("sha256 = ") == text.count("[[dependencies]]") > 40
    assert f'version = "{kafka_jars.KAFKA_VERSION}"' in text
    assert "://" not in text
