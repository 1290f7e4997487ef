"""The HTTP application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import offapi
from litestar import Litestar, Request, Router, get
from litestar.datastructures import State
from litestar.di import Provide
from litestar.middleware import DefineMiddleware
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityRequirement, SecurityScheme
from litestar.response import File, Redirect

from api import (
    authn,
    connection_activity,
    connection_listening,
    connection_probe,
    connections,
    global_webhook,
    health,
    history_http,
    messages,
    metric_series,
    metrics,
    model_choices,
    model_usage,
    prompts,
    search,
    tenancy,
    webhooks,
)
from api.idempotency import provide_key
from api.openapi import with_errors
from api.problems import HANDLERS, ProblemError
from api.security import Authentication, Principal
from api.services import Services

#: The documentation page's scripts and styles, from a dependency: the page works without the internet.
_ASSETS = Path(offapi.__file__).parent
_ASSET_NAMES = {"swagger_bundle.js", "swagger_preset.js", "swagger_style.css"}


@get("/docs/assets/{name:str}", public=True, include_in_schema=False, sync_to_thread=False)
def asset(name: str) -> File:
    """One of the documentation page's files."""
    if name not in _ASSET_NAMES:
        raise ProblemError(404, f"the documentation has no file {name}")
    kind = "text/css" if name.endswith(".css") else "text/javascript"
    return File(_ASSETS / name, media_type=kind, content_disposition_type="inline")


@get("/", public=True, include_in_schema=False, sync_to_thread=False)
def root() -> Redirect:
    """Somebody opened the address in a browser."""
    return Redirect("/docs")


def _services(state: State) -> Services:
    services: Services = state.services
    return services


def _principal(request: Request[Principal, Any, Any]) -> Principal:
    return request.user


def create_app(services: Services) -> Litestar:
    """The application over these services, which it starts and stops."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await services.start()
        try:
            yield
        finally:
            await services.stop()

    bearer: list[SecurityRequirement] = [{"bearer": []}]
    api = Router(
        "/api/v1",
        route_handlers=[
            Router("/", route_handlers=with_errors(authn.PUBLIC), tags=["users"]),
            Router("/", route_handlers=with_errors(authn.HANDLERS), tags=["users"], security=bearer),
            Router("/", route_handlers=with_errors(tenancy.HANDLERS), tags=["tenants"], security=bearer),
            Router(
                "/",
                route_handlers=with_errors(
                    [
                        *connections.HANDLERS,
                        *connection_activity.HANDLERS,
                        *connection_listening.HANDLERS,
                        *connection_probe.HANDLERS,
                    ]
                ),
                tags=["connections"],
                security=bearer,
            ),
            Router("/", route_handlers=with_errors(messages.HANDLERS), tags=["messages"], security=bearer),
            Router("/", route_handlers=with_errors(search.HANDLERS), tags=["search"], security=bearer),
            Router("/", route_handlers=with_errors(prompts.HANDLERS), tags=["prompts"], security=bearer),
            Router("/", route_handlers=with_errors(history_http.HANDLERS), tags=["history"], security=bearer),
            Router(
                "/",
                route_handlers=with_errors([*model_choices.HANDLERS, *model_usage.HANDLERS]),
                tags=["models"],
                security=bearer,
            ),
            Router(
                "/",
                route_handlers=with_errors([*metrics.HANDLERS, *metric_series.HANDLERS]),
                tags=["metrics"],
                security=bearer,
            ),
        ],
    )
    return Litestar(
        route_handlers=[
            api,
            *with_errors([*webhooks.HANDLERS, *global_webhook.HANDLERS]),
            *health.HANDLERS,
            asset,
            root,
        ],
        middleware=[DefineMiddleware(Authentication, exclude_from_auth_key="public", exclude=["^/docs"])],
        dependencies={
            "services": Provide(_services, sync_to_thread=False),
            "principal": Provide(_principal, sync_to_thread=False),
            "key": Provide(provide_key),
        },
        exception_handlers=HANDLERS,
        state=State({"services": services}),
        lifespan=[lifespan],
        openapi_config=OpenAPIConfig(
            title="EvoSense",
            version=version("evosense"),
            description="How your customers feel, in numbers you can prove.",
            path="/docs",
            render_plugins=[
                SwaggerRenderPlugin(
                    path="/",
                    js_url="/docs/assets/swagger_bundle.js",
                    css_url="/docs/assets/swagger_style.css",
                    standalone_preset_js_url="/docs/assets/swagger_preset.js",
                    # The default one is loaded from elsewhere.
                    favicon="<link rel='icon' href='data:,'>",
                ),
                JsonRenderPlugin(path="/openapi.json"),
            ],
            components=Components(
                security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")}
            ),
            use_handler_docstrings=True,
        ),
        logging_config=None,
        debug=False,
    )
