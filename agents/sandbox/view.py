"""What a job can see of the machine besides its own folders: programs, libraries, its own code.

Of a folder of installed packages everything; of any other folder on Python's path (a checkout, the
folder of a team's agents) only what the worker has imported from there.
"""

import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final

_SYSTEM: Final = tuple(
    map(Path, ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store"))
)
# No private keys, passwords or settings of other programs, which root could read.
_SETTINGS: Final = tuple(
    Path("/etc", name)
    for name in (
        "alternatives", "ca-certificates.conf", "gitconfig", "group", "hosts", "ld.so.cache",
        "ld.so.conf", "ld.so.conf.d", "localtime", "magic", "mime.types", "nsswitch.conf",
        "os-release", "passwd", "pki/ca-trust", "pki/tls/certs", "protocols", "resolv.conf",
        "services", "ssl/cert.pem", "ssl/certs", "ssl/openssl.cnf", "timezone",
    )
)  # fmt: skip
_PACKAGES: Final = frozenset({"site-packages", "dist-packages"})


def system() -> tuple[Path, ...]:
    """Programs, libraries and harmless settings of the machine."""
    return (*_SYSTEM, *_SETTINGS)


def code(modules: Iterable[str]) -> tuple[Path, ...]:
    """The interpreter, installed packages, these modules, and what was imported from elsewhere."""
    for name in modules:
        with suppress(Exception):  # who imports it in the sandbox says what is wrong with it
            import_module(name)
    whole = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix)}
    whole |= {Path(entry) for entry in sys.path if _PACKAGES.intersection(Path(entry).parts)}
    whole.discard(Path("/"))
    found = set(whole)
    for name, module in list(sys.modules.items()):
        if "." in name or name == "__main__":
            continue
        places = [*getattr(module, "__path__", ())] or [getattr(module, "__file__", None)]
        found.update(
            path
            for path in (Path(place) for place in places if isinstance(place, str))
            if path.is_absolute() and not any(path.is_relative_to(each) for each in whole)
        )
    return tuple(sorted(found))
