"""The architecture diagrammer against real folders."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agents import AgentError, Context
from agents.architecture_diagrammer import DiagramOutput, diagram
from agents.architecture_diagrammer.mermaid import MAX_TEXT

ROOT = Path(__file__).parents[3]

LINE = re.compile(
    r"flowchart LR"
    r'|    subgraph g\d+\["[^"`<>\\]*"\]|    end'
    r'|        n\d+\["[^"`<>\\]+"\]|    cut\["[^"`<>\\]+"\]'
    r"|    n\d+ -->(\|\d+\|)? n\d+"
    r'|    click n\d+ href "[^"\s<>`]+" "[^"`<>\\]+"'
)


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


async def drawn(folder: Path, **more: Any) -> DiagramOutput:
    output = await diagram.test({"repositoryPath": str(folder), **more})
    for line in output.mermaid.splitlines():
        assert LINE.fullmatch(line), line
    assert len(output.mermaid) <= MAX_TEXT
    assert output.mermaid.count("subgraph") == output.mermaid.count("    end\n")
    for node in output.nodes:
        assert f'click {node.id} href "{node.link}"' in output.mermaid
    return output


def arrows(output: DiagramOutput) -> set[tuple[str, str]]:
    paths = {
        node.id: node.name if node.group == "." else f"{node.group}/{node.name}"
        for node in output.nodes
    }
    return {(paths[each.source], paths[each.target]) for each in output.imports}


async def test_python(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "src/shop/__init__.py": "from .cart import Cart\n",
            "src/shop/cart.py": "import json\nimport shop.till\n"
            "from shop import prices as p, tax\n",
            "src/shop/prices.py": "from ..shop.tax import rate\n",
            "src/shop/tax.py": "def f():\n    from . import prices\n    import numpy.linalg\n",
            "src/shop/till.py": "from __future__ import annotations\nfrom shop import *\n",
            "run.py": "import tool\nfrom shop.cart import (\n    Cart,\n    Other,\n)\n",
            "tool.py": "from src.shop import tax\n",
        },
    )
    output = await drawn(tmp_path)
    assert arrows(output) == {
        ("src/shop/__init__.py", "src/shop/cart.py"),
        ("src/shop/cart.py", "src/shop/prices.py"),
        ("src/shop/cart.py", "src/shop/tax.py"),
        ("src/shop/cart.py", "src/shop/till.py"),
        ("src/shop/prices.py", "src/shop/tax.py"),
        ("src/shop/tax.py", "src/shop/prices.py"),
        ("src/shop/till.py", "src/shop/__init__.py"),
        ("run.py", "tool.py"),
        ("run.py", "src/shop/cart.py"),
        ("tool.py", "src/shop/tax.py"),
    }
    assert output.external == {"json": 1, "numpy": 1}
    assert (output.level, output.total.modules, output.omitted.modules) == ("module", 7, 0)


async def test_javascript_and_typescript(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "web/a.ts": "import {b} from './b.js';\nimport type {C} from '../lib';\n"
            "import x = require('./x');\nimport fs from 'node:fs';\n"
            "import s from '@scope/pkg/y';\n",
            "web/b.ts": "export * from './view';\n",
            "web/view.tsx": "const v = () => <A b={import('./late')} />;\n",
            "web/late.mjs": "const x = require(`./x`); const y = require('./x');\n",
            "web/x.js": "import 'react';\nrequire(name);\n",
            "lib/index.ts": "export {z} from '@us/tools/z';\n",
            "tools/package.json": '{"name": "@us/tools"}',
            "tools/src/z.ts": "export const z = 1;\n",
        },
    )
    output = await drawn(tmp_path)
    assert arrows(output) == {
        ("web/a.ts", "web/b.ts"),
        ("web/a.ts", "lib/index.ts"),
        ("web/a.ts", "web/x.js"),
        ("web/b.ts", "web/view.tsx"),
        ("web/view.tsx", "web/late.mjs"),
        ("web/late.mjs", "web/x.js"),
        ("lib/index.ts", "tools/src/z.ts"),
    }
    assert output.external == {"@scope/pkg": 1, "node:fs": 1, "react": 1}


async def test_java_and_go(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "j/org/a/A.java": "package org.a;\nimport org.b.*;\nimport static org.b.D.run;\n"
            "import java.util.List;\nclass A { B b = new C(); Same s; }\n",
            "j/org/a/Same.java": "package org.a;\nclass Same {}\n",
            "j/org/b/B.java": "package org.b;\npublic class B {}\n",
            "j/org/b/C.java": "package org.b;\npublic class C extends B {}\n",
            "j/org/b/D.java": "package org.b;\npublic class D {}\n",
            "j/org/b/E.java": "package org.b;\npublic class E {}\n",
            "g/go.mod": "module example.org/g\n",
            "g/main.go": 'package main\n\nimport (\n\t"fmt"\n\tx "example.org/g/inner/x"\n)\n',
            "g/inner/x/x.go": 'package x\nimport "example.org/g/inner/y"\n',
            "g/inner/x/more.go": 'package x\nimport "github.com/a/b/c"\n',
            "g/inner/y/y.go": "package y\n",
        },
    )
    output = await drawn(tmp_path)
    a, b = "j/org/a", "j/org/b"
    assert arrows(output) == {
        (f"{a}/A.java", f"{a}/Same.java"),
        (f"{a}/A.java", f"{b}/B.java"),
        (f"{a}/A.java", f"{b}/C.java"),
        (f"{a}/A.java", f"{b}/D.java"),
        (f"{b}/C.java", f"{b}/B.java"),
        ("g", "g/inner/x"),
        ("g/inner/x", "g/inner/y"),
    }
    assert output.external == {"fmt": 1, "github.com/a/b": 1, "java.util": 1}


async def test_many_modules_become_folders_and_the_cut_is_stated(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            f"p{one}/m{two}.py": f"import p{(one + 1) % 6}.m{two}\n"
            for one in range(6)
            for two in range(6)
        },
    )
    folders = await drawn(tmp_path, maxNodes=10)
    assert (folders.level, folders.total.modules, folders.omitted.modules) == ("folder", 6, 0)
    assert {each.count for each in folders.imports} == {6}
    assert "-->|6|" in folders.mermaid
    assert "not drawn" not in folders.mermaid
    cut = await drawn(tmp_path, maxNodes=10, level="module", maxEdges=2)
    assert (cut.level, len(cut.nodes), len(cut.imports)) == ("module", 10, 2)
    assert (cut.total.modules, cut.omitted.modules) == (36, 26)
    assert cut.omitted.imports == 34
    assert 'cut["not drawn: 26 modules and 34 imports"]' in cut.mermaid


async def test_a_diagram_is_never_too_long_for_mermaid(tmp_path: Path) -> None:
    deep = "/".join(["ä" * 40] * 4)
    write(tmp_path, {f"{deep}/module_{number}.py": "" for number in range(200)})
    output = await drawn(tmp_path, level="module", maxNodes=200)
    assert 0 < len(output.nodes) < 200
    assert output.omitted.modules == 200 - len(output.nodes)


async def test_no_name_breaks_out_of_its_place(tmp_path: Path) -> None:
    names = ['a"]; click x "y.py', "`b`.py", "c#quot;.py", "<script>.py", "end.py", "d\n e.py",
             "f%20 g.py", "h\\.py", "&amp;.py", "日本.py"]  # fmt: skip
    write(tmp_path, dict.fromkeys(names, "import os\n"))
    output = await drawn(tmp_path, linkBase="https://example.org/x/")
    links = {node.link for node in output.nodes}
    assert "https://example.org/x/f%2520%20g.py" in links
    assert "https://example.org/x/%E6%97%A5%E6%9C%AC.py" in links
    assert len(links) == len(names)


@pytest.mark.parametrize(
    ("origin", "start"),
    [
        ("https://user:secret@github.com/us/it.git", "https://github.com/us/it/blob/"),
        ("git@gitlab.com:us/it.git", "https://gitlab.com/us/it/-/blob/"),
        ("ssh://git@bitbucket.org/us/it", "https://bitbucket.org/us/it/src/"),
        ("https://example.org/us/it.git", ""),
    ],
)
async def test_links_lead_to_the_forge(tmp_path: Path, origin: str, start: str) -> None:
    write(tmp_path, {"a/b.py": ""})
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "remote", "add", "origin", origin)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "x")
    head = git(tmp_path, "rev-parse", "HEAD")
    output = await drawn(tmp_path)
    assert output.nodes[0].link == (f"{start}{head}/a/b.py" if start else "a/b.py")
    assert "secret" not in output.model_dump_json()
    inner = await drawn(tmp_path / "a")
    assert inner.nodes[0].link == (f"{start}{head}/a/b.py" if start else "b.py")


async def test_what_cannot_be_read_is_counted_or_told(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "broken.py": "import fine\ndef (\n",
            "fine.py": "",
            "deep.js": "`${" * 100_000,
            "binary.go": b"\0\1",
            "latin.java": b"// \xe4\n",
            "large.ts": "x;\n" * 200_000,
            "package.json": "{",
        },
    )
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.py")
    output = await drawn(tmp_path)
    assert arrows(output) == {("broken.py", "fine.py")}
    assert {it.partition(":")[0] for it in output.warnings} == {"broken.py", "deep.js"}
    assert (output.scanned_files, output.skipped_files) == (3, 3)


async def test_an_empty_folder_gives_an_empty_diagram(tmp_path: Path) -> None:
    assert (await drawn(tmp_path)).mermaid == "flowchart LR\n"
    git(tmp_path, "init", "--quiet")
    assert (await drawn(tmp_path)).nodes == ()


async def test_a_drawing_can_be_called_off(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": ""})
    context = Context()
    context.signals.cancel("no longer wanted")
    with pytest.raises(AgentError, match="called off"):
        await diagram.test({"repositoryPath": str(tmp_path)}, context)


async def test_this_repository_is_drawn() -> None:
    output = await drawn(ROOT)
    assert output.level == "folder"
    assert {("gateway", "streams"), ("agents", "streams"), ("infra", "gateway")} <= arrows(output)
    # What the import rules forbid is not in the picture either.
    assert not {("gateway", "agents"), ("streams", "sinks")} & arrows(output)
    core = await drawn(ROOT, paths=["streams"])
    assert core.level == "module"
    assert ("streams/run.py", "streams/steps.py") in arrows(core)
    assert await drawn(ROOT) == output
