"""The page: what it refers to is served, scripts find their elements, lists can be seen whole."""

import json
import re
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from node import NODE

SCRIPTS = ("app.js", "costs.js", "element.js", "pages.js")


async def text(gateway: Any, path: str) -> str:
    async with gateway.client.get(path) as response:
        assert response.status == 200, path
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        return str(await response.text())


async def test_the_page_has_what_it_refers_to(gateway: Any) -> None:
    page = await text(gateway, "/")
    referred = re.findall(r'(?:href|src)="(/[^"]+)"', page)
    assert {"/ui/app.js", "/ui/style.css"} <= set(referred)
    for path in referred:
        await text(gateway, path)


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_script_imports_what_is_served(gateway: Any, script: str) -> None:
    content = await text(gateway, f"/ui/{script}")
    for name in re.findall(r'from "\./([^"]+)"', content):
        assert name in SCRIPTS
        await text(gateway, f"/ui/{name}")


async def test_the_script_finds_its_elements(gateway: Any) -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', await text(gateway, "/")))
    asked = set(re.findall(r'\$\("([^"]+)"\)', await text(gateway, "/ui/app.js")))
    assert asked
    assert asked <= ids


PRELUDE = """
class Element {
  constructor() { this.children = []; }
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = children; }
  get text() { return this.children.map((each) => each.text ?? String(each)).join(" "); }
  all(tag) {
    const below = this.children.flatMap((each) => each.all?.(tag) ?? []);
    return this.tag === tag ? [this, ...below] : below;
  }
}
globalThis.document = { createElement: (tag) => Object.assign(new Element(), { tag }) };
globalThis.setInterval = () => 0;
const asked = [];
let answers = {};
globalThis.fetch = async (path) => {
  asked.push(path);
  const found = answers[path];
  return { ok: found !== undefined, json: async () => found ?? { detail: `nothing at ${path}` } };
};
"""
"""As much of a browser as the page's modules need that draw nothing when they are loaded."""


def in_node(folder: Path, script: str) -> Any:
    """What the script says, which imports the page's modules from `./`."""
    for each in files("gateway").joinpath("ui").iterdir():
        (folder / each.name).write_bytes(each.read_bytes())
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "test.js").write_text(PRELUDE + script)
    run = [NODE, str(folder / "test.js")]
    ran = subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_so_many_pages_of_a_list_are_one_answer(tmp_path: Path) -> None:
    said = in_node(
        tmp_path,
        """
        import { loadPages } from "./pages.js";
        answers = {
          "/api/x": { of: "first", steps: [1, 2], next: "a=" },
          "/api/x?cursor=a%3D": { of: "second", steps: [3], next: "b" },
          "/api/x?cursor=b": { of: "third", steps: [4], next: null },
        };
        const found = [];
        for (const count of [1, 2, 3, 9]) found.push(await loadPages("/api/x", "steps", count));
        delete answers["/api/x?cursor=b"];
        found.push(await loadPages("/api/x", "steps", 3), await loadPages("/api/none", "steps", 3));
        console.log(JSON.stringify(found));
        """,
    )
    assert said == [
        {"of": "first", "steps": [1, 2], "next": "a="},
        {"of": "first", "steps": [1, 2, 3], "next": "b"},
        {"of": "first", "steps": [1, 2, 3, 4], "next": None},
        {"of": "first", "steps": [1, 2, 3, 4], "next": None},
        {"problem": "nothing at /api/x?cursor=b"},
        {"problem": "nothing at /api/none"},
    ]


def test_all_budgets_can_be_seen(tmp_path: Path) -> None:
    """A page of them; the next one where it is asked for, until there is none."""
    said = in_node(
        tmp_path,
        """
        import { start } from "./costs.js";
        const sums = { from: "2026-11-01T00:00:00Z", totals: [], groups: [], more: false };
        const budget = (name) => ({ name, project: "p", state: "OK", usedPercent: "1",
          monthToDate: "1", amount: "2", forecast: "1", currency: "USD" });
        answers = {
          "/api/costs?groupBy=workflow&limit=50": sums,
          "/api/costs?groupBy=tag&limit=50": sums,
          "/api/budgets": { budgets: [budget("first")], next: "a" },
          "/api/budgets?cursor=a": { budgets: [budget("second")], next: null },
        };
        const section = document.createElement("section");
        let drawn;
        section.replaceChildren = (...children) => { section.children = children; drawn(); };
        const drawing = () => new Promise((done) => { drawn = done; });
        const found = [];
        let next = drawing();
        start(section);
        for (let more = true; more; next = drawing(), more.onclick?.()) {
          await next;
          found.push(["first", "second"].filter((name) => section.text.includes(name)));
          more = section.all("button").find((each) => each.text === "More budgets");
          if (!more) break;
        }
        console.log(JSON.stringify(found));
        """,
    )
    assert said == [["first"], ["first", "second"]]
