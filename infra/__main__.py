"""`python -m infra`: the command line, for where the console script is not on the path."""

from infra.cli import main

main()
