"""Repositories as agents see them.

`named` is how inputs name one, `checkout` clones one, `source_tree` is its files as they lie there,
`history` its commits, and `git` runs git, which trusts nothing that a repository says of itself.
"""
