"""What became of a call of an action: its output as JSON, or a `Failure` that says what is wrong.

No secret that the action asked for is in either.
"""

from typing import Any, Final

from msgspec.structs import replace
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from agents.action import Action, wrong_inputs, wrong_output
from agents.context import Context
from agents.errors import PermanentError
from agents.readable import ReadablePaths, UnreadableError
from agents.sandbox.actions import SandboxedError
from streams import duration
from streams.records import Failure

_MESSAGE_LENGTH: Final = 2_000


def final(kind: str, message: str) -> Failure:
    """A failure that another attempt would not cure."""
    return Failure(kind=kind, message=message, retryable=False)


def failure_of(error: BaseException, context: Context | None) -> Failure:
    """What an exception of an action, or of its sandbox, means for the step."""
    if isinstance(error, SandboxedError):
        message = _shortened(_hidden(error.failure.message, context))
        return replace(error.failure, message=message)
    return Failure(
        kind="agent_error",
        message=_shortened(_hidden(f"{type(error).__name__}: {error}".rstrip(": "), context)),
        retryable=not isinstance(error, PermanentError),
        error=type(error).__name__,
    )


def over_time(seconds: float) -> Failure:
    """What it means that an action took longer than it may."""
    limit = duration.text(round(seconds * 1000))
    return Failure(kind="timeout", message=f"it did not finish within {limit}")


def understood(
    action: Action[Any, Any],
    content: bytes,
    context: Context | None,
    paths: ReadablePaths | None = None,
) -> object:
    """The inputs of an action, from their JSON; a `Failure` where they are not what it takes.

    `paths`: what of the machine they may name; anything if unsaid.
    """
    try:
        inputs = action.parse(content)
        if paths is not None:
            paths.of(inputs)
    except ValidationError as error:
        return final("invalid_input", wrong_inputs(error))
    except UnreadableError as error:
        return final("invalid_input", str(error))
    except Exception as error:  # noqa: BLE001 -- a validator of the agent's own may raise anything
        return failure_of(error, context)
    return inputs


def written(action: Action[Any, Any], produced: object, context: Context | None) -> bytes | Failure:
    """The JSON of what the action returned."""
    try:
        output = action.write(produced)
    except ValidationError as error:
        return final("invalid_output", wrong_output(error))
    except PydanticSerializationError as error:
        return final("invalid_output", _shortened(_hidden(str(error), context)))
    except Exception as error:  # noqa: BLE001 -- a serializer of the agent's own may raise anything
        return failure_of(error, context)
    secret = None if context is None else context.secrets.named_in(output)
    if secret is not None:
        return final("invalid_output", f"the secret {secret} stands in the output")
    return output


def _hidden(text: str, context: Context | None) -> str:
    """The text without secrets; before it is shortened, which could leave half of one."""
    return text if context is None else context.secrets.hide(text)


def _shortened(text: str) -> str:
    text = text.encode(errors="replace").decode()  # half a surrogate pair is no JSON
    return text if len(text) <= _MESSAGE_LENGTH else text[: _MESSAGE_LENGTH - 1] + "…"
