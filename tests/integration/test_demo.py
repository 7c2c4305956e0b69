"""The whole product from one command, on a Kafka and a history of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
APP = ROOT / "examples" / "vulnerable-app"
UP = (sys.executable, "-m", "infra", "up", "--json")


@pytest.mark.kafka
def test_the_demo_finds_what_is_planted_and_leaves_nothing_behind(tmp_path: Path) -> None:
    data, big = tmp_path / "data", tmp_path / "big"
    shutil.copytree(APP, big)
    # Findings of more than 64 KiB, which travel by reference.
    (big / "shop" / "loads.py").write_text("import pickle\n" + "pickle.loads(b'')\n" * 400)
    command = ("demo", "--json", "--repo", str(big), "--data-dir", str(data))
    done = subprocess.run(
        (sys.executable, "-m", "infra", *command), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["succeeded"] is True
    reviews = [run for run in report["runs"] if run["workflow"] == "security-review"]
    assert [run["status"] for run in report["runs"]] == ["SUCCESS"] * 3
    assert len(reviews) == 2
    for run, insecure in zip(reviews, (10, 10 + 400 + 1), strict=True):
        found = {step["id"]: step["output"] for step in run["steps"]}
        assert found["scan-secrets"]["summary"]["total"] == 5
        assert found["scan-python"]["summary"]["total"] == insecure
        assert len(found["scan-python"]["findings"]) == insecure
    steps = sorted(
        (run["workflow"], step["id"], step["status"], step["durationMs"])
        for run in report["runs"]
        for step in run["steps"]
    )
    assert steps == sorted(
        (row["workflow"], row["node"], row["status"], row["duration_ms"]) for row in report["sql"]
    )
    assert "The page is at http://127.0.0.1:" in done.stderr
    assert [process for process in psutil.process_iter() if _serves(process, data)] == []


@pytest.mark.kafka
def test_up_serves_one_data_directory_until_it_is_interrupted(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    environment = {
        **os.environ,
        "COMMANDCENTER_DATA": str(tmp_path / "data"),
        "COMMANDCENTER_KAFKA_PORT": "0",
    }
    command = (*UP, "--port", str(unused_tcp_port))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as first:
        assert first.stdout is not None
        try:
            ready = next(said for line in first.stdout if "ready" in (said := json.loads(line)))
            assert ready["url"] == f"http://127.0.0.1:{unused_tcp_port}"
            second = subprocess.run(
                command, capture_output=True, text=True, env=environment, check=False
            )
            assert second.returncode == 3
            assert f"already in use by process {first.pid}" in second.stderr
        finally:
            first.send_signal(signal.SIGINT)
        assert json.loads(first.stdout.read()) == {"message": "Stopped."}
    assert first.returncode == 0


def _serves(process: psutil.Process, data: Path) -> bool:
    """Whether the process was started for this data directory, or has it in its command."""
    try:
        started_for = process.environ().get("COMMANDCENTER_DATA") == str(data)
        return started_for or any(str(data) in argument for argument in process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
