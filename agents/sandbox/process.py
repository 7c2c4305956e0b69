"""The backend `process`: jobs are forked from a warm process and confined by the kernel.

Rules:
- Starting a job costs forks, not an interpreter: `zygote` has imported the agents' modules. One
  that has died is started again.
- A job's rights end before its first instruction: another user where the worker is root, Landlock
  for files, seccomp for sockets, limits, and bubblewrap around it all where that works. What this
  machine lacks stands in `guarantees`, and is logged once, at the start.
- No process of a job outlives it, its worker, or `run`.
"""

import asyncio
import os
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import structlog

from agents.sandbox import bubblewrap, confinement, view
from agents.sandbox.attending import see_through
from agents.sandbox.environment import environment
from agents.sandbox.folders import give
from agents.sandbox.forking import Forked, Forking, ForkingGoneError, forked
from agents.sandbox.in_folders import InFolders
from agents.sandbox.job import Job, Outcome
from agents.sandbox.sandbox import Attendant, Guarantees
from agents.sandbox.wire import Order

CONCURRENCY: Final = 64
_FIRST_USER: Final = 1_879_048_192
"""The first of 2^28 user ids that neither people nor containers are given: 64 for each pid."""
_SCOPES_SIGNALS: Final = 6
_MAP: Final = Path("/proc/self/uid_map")

_log = structlog.get_logger("agents.sandbox")


class ProcessSandbox(InFolders):
    """Does jobs in processes of this machine.

    Args:
        modules: what the jobs will need; imported before the first job comes.
        preload: the same, but not by the worker, and nobody waits for it before there is a job.
        folder: where workspaces are made; by default where temporary files go.
        use_landlock: False does without, even where the kernel has it.
        use_bubblewrap: False does without, even where it is installed.
    """

    name = "process"

    def __init__(
        self,
        modules: Iterable[str] = (),
        *,
        folder: Path | None = None,
        use_landlock: bool = True,
        use_bubblewrap: bool = True,
        preload: Iterable[str] = (),
    ) -> None:
        self._modules = tuple(modules)
        self._preload = tuple(preload)
        self._landlock = use_landlock and confinement.LANDLOCK > 0
        self._bubblewrap, no_bubblewrap = (
            bubblewrap.usable() if use_bubblewrap else (None, "bubblewrap is switched off")
        )
        super().__init__(folder)
        self._first_user = _first_user() if os.geteuid() == 0 else None
        self._free = list(range(CONCURRENCY))
        self._places = asyncio.Semaphore(CONCURRENCY)
        self._forking: dict[bool, Forking] = {}
        self._starting = asyncio.Lock()
        self._view: tuple[Path, ...] = ()
        self.guarantees = self._guarantees(no_bubblewrap)

    async def _open(self) -> None:
        self._view = (*view.system(), *view.code(self._modules))
        if not self.guarantees.complete:
            _log.warning("the sandbox is not complete", missing=list(self.guarantees.why_not))
        if not self._has_exact_view:
            await self._shared_forking(network=False)

    async def _close(self) -> None:
        for forking in self._forking.values():
            await forking.close()
        self._forking.clear()

    async def run(
        self, job: Job, attendant: Attendant | None = None, stop: asyncio.Event | None = None
    ) -> Outcome:
        """Do the job, as `agents.sandbox.sandbox.Sandbox` says."""
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._places)
            place = self._free.pop()
            stack.callback(self._free.append, place)
            folder = await stack.enter_async_context(self._folders.one())
            temporary, workspace = folder / "tmp", self._workspace_of(job, folder)
            user = None if self._first_user is None else self._first_user + place
            if user is not None:
                give(user, temporary)
                await asyncio.to_thread(give, user, workspace)
            order = Order(
                limits=job.limits,
                workspace=workspace,
                temporary=temporary,
                readable=(*job.readable, *self._view),
                environment=environment(temporary),
                user=user,
                landlock=self._landlock,
                exact_view=self._has_exact_view,
                network=job.network,
            )
            running = await self._begun(job, order, stack)
            return await see_through(job, running, attendant, stop, began)

    async def _begun(self, job: Job, order: Order, stack: AsyncExitStack) -> Forked:
        if self._has_exact_view:
            own = await self._own_forking(order)
            stack.push_async_callback(own.close)
            return await stack.enter_async_context(forked(own, order))
        forking = await self._shared_forking(network=job.network)
        try:
            return await stack.enter_async_context(forked(forking, order))
        except ForkingGoneError:  # it has died, and nobody had noticed
            await self._forget(forking)
        forking = await self._shared_forking(network=job.network)
        return await stack.enter_async_context(forked(forking, order))

    @property
    def forking_processes(self) -> tuple[int, ...]:
        """The ids of the warm processes; for those who watch them."""
        return tuple(each.pid for each in self._forking.values())

    @property
    def _has_exact_view(self) -> bool:
        """Whether each job has a bubblewrap of its own."""
        return self._bubblewrap is not None and not self._landlock

    async def _shared_forking(self, *, network: bool) -> Forking:
        async with self._starting:
            known = self._forking.get(network)
            if known is not None and known.lives:
                return known
            if known is not None:
                _log.warning("the sandbox's process has died", pid=known.pid)
                await known.close()
            wrap: list[str] = []
            if self._bubblewrap is not None:
                wrap = bubblewrap.wrapped(
                    self._bubblewrap, (), writable=(self._folders.root,), network=network
                )
            made = await Forking.start(
                self._modules,
                environment(self._folders.home()),
                wrap,
                () if network else self._preload,  # with the network repositories are fetched
            )
            self._forking[network] = made
            return made

    async def _own_forking(self, order: Order) -> Forking:
        if self._bubblewrap is None:
            raise AssertionError("asked for only where there is bubblewrap")
        wrap = bubblewrap.wrapped(
            self._bubblewrap,
            (),
            writable=(order.workspace, order.temporary),
            network=order.network,
            view=order.readable,
        )
        return await Forking.start((), environment(order.temporary), wrap)

    async def _forget(self, forking: Forking) -> None:
        async with self._starting:
            for network, known in list(self._forking.items()):
                if known is forking:
                    _log.warning("the sandbox's process has died", pid=forking.pid)
                    del self._forking[network]
                    await forking.close()

    def _guarantees(self, no_bubblewrap: str) -> Guarantees:
        files = self._landlock or self._bubblewrap is not None
        is_root = self._first_user is not None
        network = confinement.SECCOMP or self._bubblewrap is not None
        why_not = []
        if not files:
            why_not.append(
                "jobs can read what their user can: the kernel has no Landlock (Linux 5.13), and "
                + no_bubblewrap
            )
            if not is_root:
                why_not.append("jobs can write to what this worker's user can write to")
        if not network:
            why_not.append("jobs have the network: no seccomp filter here, and " + no_bubblewrap)
        scoped = self._landlock and confinement.LANDLOCK >= _SCOPES_SIGNALS
        apart = is_root or scoped or self._has_exact_view
        if not apart:
            why_not.append(
                "jobs can end other processes of this worker's user, their keepers too: the worker "
                "is not root, and the kernel has no Landlock of version 6 (Linux 6.12)"
            )
        return Guarantees(
            reads_only_what_it_may=files,
            writes_only_to_its_workspace=files or is_root,
            no_network=network,
            no_other_process=apart,
            memory=True,
            processes=True,
            everything_ends=apart,
            why_not=tuple(why_not),
        )


def _first_user() -> int:
    """The first of `CONCURRENCY` users for the jobs of this worker."""
    wanted = _FIRST_USER + os.getpid() * CONCURRENCY
    ranges = [tuple(map(int, line.split())) for line in _MAP.read_text().splitlines()]
    if any(first <= wanted < first + count - CONCURRENCY for first, _, count in ranges):
        return wanted
    # In a container with few users: the last of them.
    return max(first + count for first, _, count in ranges) - CONCURRENCY
