"""Records the histories that the tests here replay, under the version of the package.

    python tests/golden/record.py            # those that are not there yet
    python tests/golden/record.py --again    # all of this version: see test_golden.py before

Files of earlier versions are never written again: they say what workers of that version decided.
"""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from history import FOLDER, recorded  # found by the path above
from lives import LIVES, lived, random_lives  # as before

RANDOM: Final = 25


def histories() -> dict[str, dict[str, Any]]:
    """The content of every file, by its name."""
    made = {}
    for life in LIVES:
        run = lived(life)
        made[life.name] = recorded(life.about, life.definition, life.limits, run.heard, run.blobs)
    for number, (definition, run) in enumerate(random_lives(RANDOM)):
        about = "A random run of a random workflow."
        made[f"random-{number:02}"] = recorded(about, definition, run.limits, run.heard, run.blobs)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="write over files of this version")
    arguments = parser.parse_args()
    folder = FOLDER / version("commandcenter")
    folder.mkdir(exist_ok=True)
    for name, content in histories().items():
        path = folder / f"{name}.json"
        if arguments.again or not path.exists():
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
            sys.stdout.write(f"{path.relative_to(FOLDER)}: {len(content['steps'])} messages\n")


if __name__ == "__main__":
    main()
