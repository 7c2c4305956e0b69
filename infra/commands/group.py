"""A group of commands, whose help says of each command all of its first sentence."""

from typing import Any, Final

from typer.core import TyperGroup

_ANY_LENGTH: Final = 1_000


class Group(TyperGroup):
    """Typer's own cuts the sentences off where the line ends; these go on below."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(_ANY_LENGTH).removesuffix("."))
                    for name in self.list_commands(ctx)
                    if (command := self.get_command(ctx, name)) is not None
                ]
            )
