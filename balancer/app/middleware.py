"""The middleware around the balancer's app, from the inside out."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from balancer.access.host_names import HostNames
from balancer.access.trusted_proxies import TrustedProxies
from balancer.api import page
from balancer.api.middleware.access_log import AccessLogMiddleware
from balancer.api.middleware.authentication import OPEN_PATHS, AuthenticationMiddleware
from balancer.api.middleware.cors import CorsMiddleware
from balancer.api.middleware.forwarded import ForwardedMiddleware
from balancer.api.middleware.host_check import HostCheckMiddleware
from balancer.api.middleware.paths import PathsMiddleware
from balancer.api.middleware.signed_links import SignedLinksMiddleware
from balancer.app.services import Services
from balancer.settings.access import AccessSettings
from balancer.settings.settings import Settings


def with_middleware(app: Starlette, settings: Settings, services: Services) -> ASGIApp:
    """Returns the app behind authentication, the check of the host's name, the access log and the like."""
    routes = [route for route in app.routes if isinstance(route, Route)]
    authenticated = AuthenticationMiddleware(app, services.keys, _open_paths(settings.access))
    admitted: ASGIApp = SignedLinksMiddleware(app, authenticated, services.links)
    if origins := settings.access.allowed_origins:
        admitted = CorsMiddleware(admitted, origins)
    guarded = HostCheckMiddleware(admitted, services.keys, _host_names(settings))
    logged = AccessLogMiddleware(guarded, services.metrics, routes)
    proxies = TrustedProxies(settings.server.trusted_proxies)
    return PathsMiddleware(ForwardedMiddleware(logged, proxies) if proxies else logged)


def _open_paths(access: AccessSettings) -> tuple[str, ...]:
    """The paths that need no API key."""
    open_paths = list(OPEN_PATHS)
    if access.open_metrics:
        open_paths += ["/metrics"]
    if access.open_docs:
        open_paths += ["/openapi.json", "/docs"]
    if access.page:
        open_paths += page.PAGE_PATHS
    return tuple(open_paths)


def _host_names(settings: Settings) -> HostNames | None:
    """Returns the names under which clients reach this server; None if any may be one of them."""
    server, access = settings.server, settings.access
    if not server.loopback and not access.allowed_hosts:
        return None
    return HostNames(server.public_url, access.allowed_hosts, access.allowed_origins)
