"""Agents: the SDK, the runtime that consumes tasks, and the built-in agents."""
