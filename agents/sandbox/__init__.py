"""Sandboxes: where heavy work and work that is not trusted is done, confined and bounded."""

from agents.sandbox.errors import SandboxError
from agents.sandbox.job import Call, Command, Job, Limits, Outcome, Problem
from agents.sandbox.process import ProcessSandbox
from agents.sandbox.sandbox import Attendant, Guarantees, Sandbox

__all__ = [
    "Attendant",
    "Call",
    "Command",
    "Guarantees",
    "Job",
    "Limits",
    "Outcome",
    "Problem",
    "ProcessSandbox",
    "Sandbox",
    "SandboxError",
]
