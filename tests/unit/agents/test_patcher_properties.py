"""Whatever a patch does to whatever files: taken back, the tree is as it was, byte for byte."""

import asyncio
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agents import Context
from agents.patcher import apply
from agents.patcher.order import PatchOutput

Files = dict[str, bytes]

WORDS = st.sampled_from(
    ["", "a", "b", "x = 1", "x = 2", "-- a", "++ b", "@@ -1 +1 @@", "diff --git a/x b/x", "ä€𝄞",
     "\t", "\\ No newline at end of file", "\x0c", "\x85", "\u2028", "--- a/x", "GIT binary patch"]
)  # fmt: skip
ENDS = st.sampled_from(["\n", "\r\n", "\r"])
TEXTS = st.builds(
    lambda lines, last: "".join(word + end for word, end in lines).encode() + last.encode(),
    st.lists(st.tuples(WORDS, ENDS), max_size=12),
    WORDS,
)
CONTENTS = st.one_of(TEXTS, st.binary(max_size=60), st.just(b""))
NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='/\\:?*<>|~ .'), min_size=1,
    max_size=8,
).filter(lambda name: name.lower() != "git")  # fmt: skip
PATHS = st.one_of(
    st.sampled_from(
        ["a", "b.txt", "with space/a b.txt", 'quo"ted', "tab\tbed", "ü/ö.txt", "[x]", "#"]
    ),
    st.builds("{}/{}".format, NAMES, NAMES),
    NAMES,
)


def _consistent(files: Files) -> bool:
    folders = {path.rpartition("/")[0] for path in files if "/" in path}
    return folders.isdisjoint(files)


FILES = st.dictionaries(PATHS, CONTENTS, max_size=5).filter(_consistent)
PAIRS = st.tuples(FILES, FILES).filter(lambda pair: _consistent(pair[0] | pair[1]))


def git(folder: Path, *arguments: str, data: bytes = b"") -> bytes:
    done = subprocess.run(
        ["git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", *arguments],
        cwd=folder, check=True, capture_output=True, input=data,
    )  # fmt: skip
    return done.stdout


def tree_of(folder: Path, files: Files) -> str:
    """The id of the tree of these files, put into the index without a work tree."""
    git(folder, "read-tree", "--empty")
    lines = b""
    for path, content in files.items():
        name = git(folder, "hash-object", "-w", "--stdin", data=content).strip()
        lines += b"100644 " + name + b"\t" + path.encode() + b"\0"
    git(folder, "update-index", "-z", "--index-info", data=lines)
    return tree_in_index(folder)


def tree_in_index(folder: Path) -> str:
    return git(folder, "write-tree").decode().strip()


def patched(folder: Path, kind: str, changes: object, **target: object) -> PatchOutput:
    order = {
        "patchType": kind,
        "target": {"repositoryPath": str(folder), **target},
        "changes": changes,
    }
    return asyncio.run(apply.test(order, Context(task_id="run/step/1")))


def assert_taken_back(folder: Path, output: PatchOutput, before: str, after: str) -> None:
    git(folder, "read-tree", after)
    if output.rollback:
        git(folder, "apply", "--cached", "--whitespace=nowarn", "-", data=output.rollback.encode())
    assert tree_in_index(folder) == before
    whole = "".join(change.diff for change in output.changes)
    if whole:
        git(folder, "apply", "--cached", "--whitespace=nowarn", "-", data=whole.encode())
    assert tree_in_index(folder) == after


@pytest.mark.timeout(600)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pair=PAIRS)
@example(pair=({"a": b"x"}, {"a": b"x\n"}))
@example(pair=({"a": b"x\r\ny\r\n"}, {"a": b"x\r\nz\r\n"}))
@example(pair=({"a": b"", "b": b"y"}, {"b": b"", "c": b""}))
@example(pair=({}, {"ü/ö.txt": "ä".encode()}))
@example(pair=({"a": b"\xe4\n"}, {"a": b"\xe5\n"}))
@example(pair=({"a": b"\0\1"}, {}))
def test_any_patch_applied_and_taken_back_leaves_the_same_tree(pair: tuple[Files, Files]) -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        git(folder, "init", "--quiet", "--initial-branch=main")
        before, after = (tree_of(folder, files) for files in pair)
        commit = git(folder, "commit-tree", before, "-m", "as it was").decode().strip()
        git(folder, "update-ref", "refs/heads/main", commit)
        diff = git(folder, "diff-tree", "-p", "-r", "--binary", "--full-index", before, after)
        try:
            text = diff.decode()
        except UnicodeDecodeError:
            return  # no JSON can carry such a diff
        if before == after:
            return
        output = patched(folder, "security-patch", {"diff": text})
        assert git(folder, "rev-parse", f"{output.branch}^{{tree}}").decode().strip() == after
        assert_taken_back(folder, output, before, after)


@pytest.mark.timeout(600)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=FILES, find=st.sampled_from(["a", "x = 1", "\n", "\r", "ä", "1\n"]), replace=WORDS)
@example(files={"a": b"\xe4 a"}, find="a", replace="b")
@example(files={"a": b"a"}, find="a", replace="a")
def test_any_text_replaced_and_taken_back_leaves_the_same_tree(
    files: Files, find: str, replace: str
) -> None:
    texts = [content for content in files.values() if b"\0" not in content]
    count = sum(content.count(find.encode()) for content in texts)
    if not count:
        return
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        git(folder, "init", "--quiet", "--initial-branch=main")
        before = tree_of(folder, files)
        commit = git(folder, "commit-tree", before, "-m", "as it was").decode().strip()
        git(folder, "update-ref", "refs/heads/main", commit)
        change = {"kind": "replace", "find": find, "replace": replace, "expectedCount": count}
        output = patched(folder, "simple-refactor", [change])
        expected = {
            path: content if b"\0" in content else content.replace(find.encode(), replace.encode())
            for path, content in files.items()
        }
        after = tree_of(folder, expected)
        assert (output.branch is None) == (after == before)
        assert_taken_back(folder, output, before, after)
