"""The page: all that it refers to is served, and the script finds the elements that it asks for."""

import re
from typing import Any

import pytest

SCRIPTS = ("app.js", "costs.js", "element.js")


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
