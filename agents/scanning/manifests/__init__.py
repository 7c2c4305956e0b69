"""Manifests and lock files: one module for each ecosystem, and which file is read by which."""
