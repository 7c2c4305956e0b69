"""Lists on a terminal: a line for each row, whatever there is room for."""

import re
import sys

import pytest

from infra.commands import output

COLUMNS = ("RUN", "WORKFLOW", "STATUS", "TRIGGER", "ERROR")
ROWS = [
    ("70623f47-76a0-54d7-8ccc-9bfd23eb4dfa", "security-review v1", "SUCCESS", "repo.push", None),
    ("c983611e-9161-548e-a97f-75792e1ddb85", "fine v1", "FAILED", "odd", "a reason of \n 25 words"),
]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            110,
            [
                f"{'RUN':38}WORKFLOW            STATUS   TRIGGER    ERROR",
                f"{ROWS[0][0]}  security-review v1  SUCCESS  repo.push",
                f"{ROWS[1][0]}  fine v1             FAILED   odd        a reason of   25 words",
            ],
        ),
        (
            60,
            [
                f"{'RUN':38}WORKFLOW       STATUS",
                f"{ROWS[0][0]}  security-rev…  SUCCESS",
                f"{ROWS[1][0]}  fine v1        FAILED",
                "No room for TRIGGER, ERROR: widen the terminal, or ask for --json.",
            ],
        ),
        (
            20,
            [
                "RUN",
                *(row[0] for row in ROWS),
                f"No room for {', '.join(COLUMNS[1:])}: widen the terminal, or ask for --json.",
            ],
        ),
    ],
)
def test_what_is_copied_stays_whole_and_a_row_is_a_line(
    width: int,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    output.print_list(COLUMNS, ROWS, "None.")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert [line.rstrip() for line in plain.splitlines()] == lines


def test_in_a_pipe_everything_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_list(("A", "B"), [("x" * 300, 1)], "None.")
    assert capsys.readouterr().out == f"a\tb\n{'x' * 300}\t1\n"
