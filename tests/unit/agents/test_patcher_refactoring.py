"""Renames and replacements over many files."""

import pytest

from agents import PermanentError
from agents.patcher.order import Rename, Replacement
from agents.patcher.refactoring import renamed, replaced

FILES = {
    "shop/__init__.py": b"",
    "shop/prices.py": "# ü\ndef total(items):\n    '''total of items'''\n    return sum(items)\n"
    "class Basket:\n    limit = 3\n\n    def total(self):\n        return total([1])\n".encode(),
    "shop/till.py": b"from shop.prices import total as t, Basket\r\nfrom . import prices\r\n"
    b"total = t([1]) + prices.total([2])\r\nprint(Basket().total(), Basket.limit)\r\n",
    "broken.py": b"def (\n",
}


def rename(symbol: str, to: str, file: str = "shop/prices.py") -> Rename:
    return Rename(kind="rename", file=file, symbol=symbol, to=to)


def test_a_function_is_renamed_where_it_is_meant() -> None:
    edits = renamed(FILES, rename("total", "summed"))
    assert edits == {
        "shop/prices.py": FILES["shop/prices.py"]
        .replace(b"def total(items)", b"def summed(items)")
        .replace(b"return total([1])", b"return summed([1])"),
        "shop/till.py": FILES["shop/till.py"]
        .replace(b"import total as t", b"import summed as t")
        .replace(b"prices.total", b"prices.summed"),
    }


def test_a_method_a_class_and_a_variable_are_renamed() -> None:
    method = renamed(FILES, rename("Basket.total", "worth"))
    assert b"def worth(self)" in method["shop/prices.py"]
    assert b"def total(items)" in method["shop/prices.py"]
    assert b"Basket().worth()" in method["shop/till.py"]
    made = renamed(FILES, rename("Basket", "Cart"))
    assert b"print(Cart().total(), Cart.limit)" in made["shop/till.py"]
    limit = renamed(FILES, rename("Basket.limit", "most"))
    assert b"Basket.most" in limit["shop/till.py"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (rename("nothing", "x"), "defines no nothing"),
        (rename("Basket.nothing", "x"), "defines no Basket.nothing"),
        (rename("total", "class"), "cannot be renamed|not Python"),
        (rename("x", "y", "nowhere.py"), "nowhere.py is no file"),
        (rename("x", "y", "broken.py"), "broken.py is not Python"),
    ],
)
def test_a_rename_that_cannot_be_is_told(change: Rename, says: str) -> None:
    with pytest.raises(PermanentError, match=says):
        renamed(FILES, change)


def test_line_ends_of_several_kinds_would_not_stay() -> None:
    with pytest.raises(PermanentError, match=r"a\.py has line ends of several kinds"):
        renamed({"a.py": b"def a():\r\n    pass\n"}, rename("a", "b", "a.py"))
    with pytest.raises(PermanentError, match=r"a\.py is not UTF-8"):
        renamed({"a.py": b"# \xe4\ndef a(): pass\n"}, rename("a", "b", "a.py"))


def test_a_text_is_replaced_if_it_is_there_as_often_as_expected() -> None:
    change = Replacement(kind="replace", find="total", replace="sum", expected_count=3)
    files = {"a": b"total total", "b": b"\xfftotal", "c": b"x"}
    assert replaced(files, change) == {"a": b"sum sum", "b": b"\xffsum"}
    with pytest.raises(PermanentError, match=r"is there 2 times, not 3: a \(2\)"):
        replaced({"a": b"total total"}, change)


def test_nothing_that_the_repository_holds_is_run(tmp_path: object) -> None:
    trap = f"open({str(tmp_path) + '/sprung'!r}, 'w').close()\n".encode()
    files = {
        "a.py": trap + b"def a(): pass\n",
        "conftest.py": trap,
        ".ropeproject/config.py": trap,
        "sitecustomize.py": trap,
    }
    assert b"def b()" in renamed(files, rename("a", "b", "a.py"))["a.py"]
    from pathlib import Path

    assert list(Path(str(tmp_path)).iterdir()) == []
