"""How a process gives up its rights for good: Landlock, seccomp, another user, limits.

Everything here is a system call on the calling process and is inherited by what it starts; nothing
can be taken back. Each part says whether this machine has it (`LANDLOCK`, `SECCOMP`), none needs
privileges but `become`. Linux only; elsewhere both are absent.

Rules:
- Landlock takes away files: what is not named cannot be opened, listed, run or changed. It does not
  hide that a path exists, nor modes and times of the user's own files.
- seccomp takes away sockets (the network, and local ones such as an engine's), and doors that no
  honest program needs: other processes' memory, new namespaces, io_uring, memory that no limit
  counts.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from errno import EACCES, ENOSYS, EPERM
from pathlib import Path
from typing import Final

from agents.sandbox.job import Limits

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_KEEPCAPS: Final = 8
_PR_SET_SECCOMP: Final = 22
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_SET_SECUREBITS: Final = 28
_NO_SETUID_FIXUP: Final = 1 << 2
_CAP_DAC_READ_SEARCH: Final = 2
_CLONE_NEWUSER: Final = 0x1000_0000


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(option: int, *arguments: int) -> None:
    given = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
    _checked(_libc.prctl(option, *given), f"prctl {option}")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int, signal: int) -> None:
    """Be sent `signal` when the parent ends. It may have done so already."""
    _prctl(_PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal)


# --- limits ---------------------------------------------------------------------------------------

_SLACK: Final = 16
CPU_GRACE_S: Final = 1
"""What a process may still use after the signal that says it has used up its CPU time."""


def limit(limits: Limits, others: int = 0) -> None:
    """Set the limits that the kernel keeps. `others`: what the user runs besides, where it counts.

    Each has some slack: the watch of `keeper` sees the limit passed and says so clearly; these are
    for what grows faster than it looks.
    """
    memory = limits.memory + limits.memory // 4
    for which, most in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_FSIZE, limits.file),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_NPROC, limits.processes + _SLACK + others),
        (resource.RLIMIT_CORE, 0),
    ):
        _lower(which, most, most)
    _lower(resource.RLIMIT_CPU, limits.cpu, limits.cpu + CPU_GRACE_S + max(1, limits.cpu // 4))


def _lower(which: int, soft: int, hard: int) -> None:
    _, allowed = resource.getrlimit(which)
    if allowed != resource.RLIM_INFINITY:
        soft, hard = min(soft, allowed), min(hard, allowed)
    resource.setrlimit(which, (soft, hard))


# --- the user -------------------------------------------------------------------------------------


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _set_capabilities(mask: int) -> None:
    header = _CapHeader(0x20080522, 0)
    data = (_CapData * 2)(_CapData(mask, mask, mask), _CapData(0, 0, 0))
    _checked(_libc.capset(ctypes.byref(header), ctypes.byref(data)), "capset")


def become(user: int, *, reads_as_root: bool) -> None:
    """Root becomes `user`, with no right left of root's.

    `reads_as_root` keeps the right to read what root may read: for where the view of files is
    narrowed by other means. Else an interpreter or a repository in root's home could not be read.
    """
    if reads_as_root:
        _prctl(_PR_SET_KEEPCAPS, 1)
        # access(2) otherwise leaves the right out for whoever is not root, and git believes it.
        with suppress(OSError):
            _prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    mask = 1 << _CAP_DAC_READ_SEARCH if reads_as_root else 0
    _set_capabilities(mask)
    if reads_as_root:
        _prctl(_PR_CAP_AMBIENT, 2, _CAP_DAC_READ_SEARCH)
    _prctl(_PR_SET_DUMPABLE, 1)  # else /proc/self belongs to root


def own_user_namespace() -> bool:
    """Count this process and its children apart from the user's others. False: not allowed here."""
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWUSER) != 0:
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _set_capabilities(0)
    return True


# --- Landlock -------------------------------------------------------------------------------------

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446

_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_REFER: Final = 1 << 13
_TRUNCATE: Final = 1 << 14
_IOCTL_DEV: Final = 1 << 15
_ALL_OF_1: Final = (1 << 13) - 1
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_SCOPES: Final = 3
"""Abstract sockets and signals stay within."""


def _landlock_version() -> int:
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


LANDLOCK: Final = _landlock_version()
"""The version of Landlock that the kernel offers; 0: none."""


def restrict_files(
    readable: Iterable[Path], writable: Iterable[Path], devices: Iterable[Path]
) -> None:
    """Leave these files and folders with all that is below them, and nothing else.

    What is not there is passed over; `writable` must be there.
    """
    handled = _ALL_OF_1
    for version, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        handled |= right if version <= LANDLOCK else 0
    attributes = struct.pack("=Q", handled)
    if LANDLOCK >= 6:
        attributes = struct.pack("=QQQ", handled, 0, _SCOPES)
    rules = _checked(
        _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0), "Landlock"
    )
    try:
        for path in readable:
            _allow(rules, path, _READ & handled, needed=False)
        for path in devices:
            _allow(rules, path, (_READ_FILE | _WRITE_FILE | _IOCTL_DEV) & handled, needed=False)
        for path in writable:
            _allow(rules, path, handled & ~_IOCTL_DEV, needed=True)
        forbid_new_privileges()
        _checked(_libc.syscall(_RESTRICT_SELF, rules, 0), "Landlock")
    finally:
        os.close(rules)


def _allow(rules: int, path: Path, rights: int, *, needed: bool) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        if needed:
            raise
        return
    try:
        if not os.path.isdir(f"/proc/self/fd/{place}"):  # noqa: PTH112 -- a descriptor, not a path
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, place)
        _checked(_libc.syscall(_ADD_RULE, rules, 1, rule, 0), f"Landlock: {path}")
    finally:
        os.close(place)


def forbid_new_privileges() -> None:
    """No program that this process starts gains rights by its file's mode (sudo and the like)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


# --- seccomp --------------------------------------------------------------------------------------

_ARCHITECTURES: Final[Mapping[str, tuple[int, int]]] = {
    "x86_64": (0xC000003E, 0),
    "aarch64": (0xC00000B7, 1),
}
_SOCKET: Final = (41, 198)
_CLONE: Final = (56, 220)
_CLONE3: Final = (435, 435)
# Numbers on x86_64 and aarch64.
_FORBIDDEN: Final[Mapping[str, tuple[int, int]]] = {
    "io_uring_setup": (425, 425),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "open_by_handle_at": (304, 265),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
}

SECCOMP: Final = sys.platform == "linux" and platform.machine() in _ARCHITECTURES
"""Whether system calls can be filtered here."""

_LOAD: Final = 0x20
_EQUAL: Final = 0x15
_AT_LEAST: Final = 0x35
_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_KILL: Final = 0x8000_0000
_ERROR: Final = 0x0005_0000
_ALLOW: Final = 0x7FFF_0000


def filter_calls(*, sockets: bool) -> None:
    """Refuse the calls named above, and, unless `sockets`, every new socket that is not a pair."""
    architecture, column = _ARCHITECTURES[platform.machine()]

    def refuse(number: int, error: int) -> list[bytes]:
        return [_step(_EQUAL, 0, 1, number), _step(_RETURN, 0, 0, _ERROR | error)]

    steps = [
        _step(_LOAD, 0, 0, 4),
        _step(_EQUAL, 1, 0, architecture),
        _step(_RETURN, 0, 0, _KILL),
        _step(_LOAD, 0, 0, 0),
    ]
    if column == 0:  # the numbers of the x32 ABI, which would lead around the others
        steps += [_step(_AT_LEAST, 0, 1, 0x4000_0000), _step(_RETURN, 0, 0, _ERROR | EPERM)]
    for numbers in _FORBIDDEN.values():
        steps += refuse(numbers[column], EPERM)
    # What clone3 is given cannot be looked at; without it the C library uses clone.
    steps += refuse(_CLONE3[column], ENOSYS)
    if not sockets:
        steps += refuse(_SOCKET[column], EACCES)
    steps += [
        _step(_EQUAL, 0, 3, _CLONE[column]),
        _step(_LOAD, 0, 0, 16),
        _step(_ANY_BIT, 0, 1, _CLONE_NEWUSER),
        _step(_RETURN, 0, 0, _ERROR | EPERM),
        _step(_RETURN, 0, 0, _ALLOW),
    ]
    program = ctypes.create_string_buffer(b"".join(steps))
    header = struct.pack("@HP", len(steps), ctypes.addressof(program))
    forbid_new_privileges()
    where = ctypes.create_string_buffer(header)
    _prctl(_PR_SET_SECCOMP, 2, ctypes.addressof(where))


def _step(code: int, yes: int, no: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)
