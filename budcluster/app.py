"""The FastAPI application: middleware, error handling and routes put together. Who serves it with what: `bootstrap`."""

from contextlib import AbstractAsyncContextManager

import structlog
from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Scope

from budcluster import __version__
from budcluster.api import health, pages
from budcluster.api.authentication import Authentication
from budcluster.api.context import RequestContext
from budcluster.api.limits import Limits
from budcluster.api.openapi import document
from budcluster.api.problems import from_unforeseen, install, render, render_unknown
from budcluster.audit import routes as audit_routes
from budcluster.bootstrap import Service, make_service
from budcluster.cluster import routes as cluster_routes
from budcluster.config import Settings
from budcluster.credentials import routes as credential_routes
from budcluster.deployment import routes as deployment_routes
from budcluster.deployment.logs import routes as deployment_log_routes
from budcluster.hardware import changes as hardware_changes
from budcluster.hardware import routes as hardware_routes
from budcluster.monitoring import routes as monitoring_routes
from budcluster.operations import routes as operation_routes

log = structlog.get_logger(__name__)

ROUTERS: list[APIRouter] = [
    cluster_routes.router,
    hardware_routes.router,
    hardware_changes.router,
    monitoring_routes.router,
    deployment_routes.router,
    deployment_log_routes.router,
    operation_routes.router,
    credential_routes.router,
    audit_routes.router,
]
"""The routers of the features."""


def create_app(settings: Settings, service: Service | None = None) -> FastAPI:
    """The application on these settings. `service` lets a test bring parts of its own."""
    own = service or make_service(settings)

    def lifespan(_: FastAPI) -> AbstractAsyncContextManager[None]:
        return own.running()

    app = FastAPI(
        title="budcluster",
        summary="Control plane for GPU Kubernetes clusters and LLM runtimes",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            Middleware(RequestContext, observe=own.metrics.observe, on_error=_last_answer),
            Middleware(Limits, max_body_bytes=settings.api.max_body_bytes),
            Middleware(health.StartGate, readiness=own.readiness),
            Middleware(Authentication, authenticator=own.authenticator),
        ],
    )
    app.state.edge = own.edge
    install(app)
    app.include_router(health.router(own.readiness, own.metrics))
    app.include_router(pages.router(app))
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return app


def _last_answer(error: Exception, scope: Scope) -> ASGIApp:
    known = from_unforeseen(error)
    if known is not None:
        log.warning("request.refused", problem=known.slug(), detail=known.detail)
        return render(known, scope)
    log.error("request.failed", exc_info=error)
    return render_unknown(scope)
