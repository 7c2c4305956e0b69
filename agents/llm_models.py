"""The language models that workflows may name: `provider:model`, as pydantic-ai knows them.

Rules:
- The operator says where a provider is and gives its key: `COMMANDCENTER_LLM_URLS` has
  `name=https://…/v1` for servers that speak as OpenAI does, separated by commas; the key of a
  provider is the secret `<NAME>_API_KEY`. Inputs cannot name a server, so none is judged.
- `COMMANDCENTER_LLM_MODELS` are the models for steps that name none: the first, and those to fall
  back on.
- A model that cannot be asked, as its key is missing, is passed over for the next.
- `test` answers without a network, for trying a workflow out.
"""

import os
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from agents.context import Context
from agents.errors import PermanentError
from agents.secrets import Secrets
from streams.errors import AgentError, OperatorError

if TYPE_CHECKING:
    from pydantic_ai.models import Model

MODELS: Final = "COMMANDCENTER_LLM_MODELS"
URLS: Final = "COMMANDCENTER_LLM_URLS"
TEST: Final = "test"

NAME: Final = re.compile(r"test|[a-z0-9][a-z0-9_-]*:[^\s,]{1,200}")
_PROVIDER: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")


def default_models(text: str | None = None) -> list[str]:
    """The models of the setting. Raises `OperatorError`."""
    text = os.environ.get(MODELS, "") if text is None else text
    names = [each.strip() for each in text.split(",") if each.strip()]
    for name in names:
        if not NAME.fullmatch(name):
            raise OperatorError(f"{MODELS}: {name!r} is not provider:model")
    return names


def urls(text: str | None = None) -> dict[str, str]:
    """Where providers are, by name. Raises `OperatorError`."""
    text = os.environ.get(URLS, "") if text is None else text
    found: dict[str, str] = {}
    for each in filter(None, (it.strip() for it in text.split(","))):
        name, _, url = each.partition("=")
        parts = urlsplit(url)
        if not _PROVIDER.fullmatch(name) or parts.scheme not in {"http", "https"} or parts.username:
            raise OperatorError(f"{URLS}: {name!r} is not name=https://host/v1 without credentials")
        found[name] = url
    return found


def open_models(names: Sequence[str], context: Context, clients: AsyncExitStack) -> "Model":
    """One model, which falls back from each of the names to the next.

    Raises:
        PermanentError: a name, a key or a package is missing, for each of them.
        AgentError: none can be used, and that may pass: a secret could not be read.
    """
    try:
        from pydantic_ai.models.fallback import FallbackModel
    except ModuleNotFoundError as error:
        raise PermanentError(
            f"{error.name} is not installed; install the extra: commandcenter[agents]"
        ) from error
    models: list[Model] = []
    failures: dict[str, AgentError] = {}
    for name in names:
        try:
            models.append(_model(name, context.secrets, clients))
        except AgentError as error:
            failures[name] = error
            context.logger.warning("a model is passed over", model=name, reason=str(error))
    if not models:
        final = all(isinstance(each, PermanentError) for each in failures.values())
        text = "; ".join(f"the model {name} cannot be used: {it}" for name, it in failures.items())
        raise (PermanentError if final else AgentError)(text)
    return models[0] if len(models) == 1 else FallbackModel(models[0], *models[1:])


def _model(name: str, secrets: Secrets, clients: AsyncExitStack) -> "Model":
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.models import infer_model
    from pydantic_ai.models.openai import OpenAIChatModel

    if name == TEST:
        return infer_model(TEST)
    provider, _, model = name.partition(":")
    key = f"{provider.upper().replace('-', '_')}_API_KEY"
    url = urls().get(provider)
    try:
        if url is not None:
            known = secrets[key] if key in secrets else None  # noqa: SIM401 -- it is no mapping
            return OpenAIChatModel(model, provider=_compatible(provider, url, known, clients))
        return infer_model(name, lambda it: _provider(it, key, secrets, clients))
    except (UserError, ValueError) as error:
        raise PermanentError(
            f"{error}; a server that speaks as OpenAI does can be named in {URLS}"
        ) from error
    except ImportError as error:
        raise PermanentError(f"it needs a package: {error}") from error


def _compatible(provider: str, url: str, key: str | None, clients: AsyncExitStack) -> Any:
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    return OpenAICompatibleProvider(
        provider, base_url=url, api_key=key or "none", http_client=_client(clients)
    )


def _provider(provider: str, key: str, secrets: Secrets, clients: AsyncExitStack) -> Any:
    from pydantic_ai.providers import infer_provider_class

    make: Any = infer_provider_class(provider)
    if key not in secrets:
        # Asking for it says how to give it; that it is missing does not pass by itself.
        try:
            secrets[key]
        except AgentError as error:
            raise PermanentError(str(error)) from error
    return make(api_key=secrets[key], http_client=_client(clients))


def _client(clients: AsyncExitStack) -> Any:
    """Of this task's own: it follows no redirect, and no proxy of the environment."""
    from httpx2 import AsyncClient, Timeout

    client = AsyncClient(
        timeout=Timeout(120.0, connect=10.0), follow_redirects=False, trust_env=False
    )
    clients.push_async_callback(client.aclose)
    return client
