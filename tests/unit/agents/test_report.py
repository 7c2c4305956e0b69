"""The report agent: the same findings, counted and written as Markdown."""

from agents.finding import Finding, Severity
from agents.report import FileCount, SummarizeInput, summarize


def finding(severity: Severity, kind: str, file: str, line: int = 1, text: str = "x") -> Finding:
    return Finding(
        type=kind, severity=severity, file=file, line=line, description=text, code="code"
    )


async def test_findings_are_counted_and_written() -> None:
    findings = [
        finding("low", "python.B404", "b.py"),
        finding("high", "python.B602", "b.py", 7, "shell | <b>"),
        finding("critical", "secret.private-key", "a|b.pem", 1, "a\nkey"),
        finding("high", "python.B602", "a.py", 3, "shell"),
        finding("medium", "python.B608", "b.py"),
    ]
    output = await summarize.test(
        SummarizeInput(findings=findings, omitted_findings=3, title="Shop", top=2)
    )
    assert output.total == 5
    assert output.by_severity == {"critical": 1, "high": 2, "medium": 1, "low": 1}
    assert list(output.by_type.items()) == [
        ("python.B602", 2),
        ("python.B404", 1),
        ("python.B608", 1),
        ("secret.private-key", 1),
    ]
    assert output.top_files == [
        FileCount(file="b.py", findings=3),
        FileCount(file="a.py", findings=1),
    ]
    assert output.markdown == (
        "# Shop\n"
        "\n"
        "5 findings: 1 critical, 2 high, 1 medium, 1 low.\n"
        "\n"
        "3 more are counted by the scan, not listed here.\n"
        "\n"
        "| type | findings |\n"
        "|---|---|\n"
        "| python.B602 | 2 |\n"
        "| python.B404 | 1 |\n"
        "| python.B608 | 1 |\n"
        "| secret.private-key | 1 |\n"
        "\n"
        "| file | findings |\n"
        "|---|---|\n"
        "| b.py | 3 |\n"
        "| a.py | 1 |\n"
        "\n"
        "## Look at these first\n"
        "\n"
        "- **critical** a\\|b.pem:1: a key\n"
        "- **high** a.py:3: shell\n"
    )


async def test_text_from_a_repository_stays_in_its_cell() -> None:
    output = await summarize.test(
        {"findings": [finding("high", "t", "a.py", 1, "a | <script>").model_dump()]}
    )
    assert "a \\| &lt;script>" in output.markdown


async def test_no_findings_is_a_page_too() -> None:
    output = await summarize.test({"findings": []})
    assert output.markdown == "# Security findings\n\nNothing was found.\n"
    assert output.by_severity == {"critical": 0, "high": 0, "medium": 0, "low": 0}
    assert (output.total, output.by_type, output.top_files) == (0, {}, [])


async def test_it_takes_the_findings_of_a_newer_scan() -> None:
    newer = finding("low", "t", "a.py").model_dump(by_alias=True) | {"cwe": 79}
    assert (await summarize.test({"findings": [newer]})).total == 1
