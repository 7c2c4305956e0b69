"""A small shop with planted security problems; see the README. Do not run it."""
