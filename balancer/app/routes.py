"""The routes of the balancer's app: every HTTP surface, with the services that it needs."""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

from starlette.routing import BaseRoute

from balancer.api import docs, documents, health, history, links, openai, operators, page, queue, tts, voices
from balancer.api.catalogue import CatalogueRoutes
from balancer.app.services import Services
from balancer.settings.settings import Settings


class Closeable(Protocol):
    """A pool of threads, or what owns one."""

    def close(self) -> None:
        """End the threads as they become idle; do not wait for them."""


class Routes(NamedTuple):
    """The routes, and what of them is to be closed at the end."""

    routes: list[BaseRoute]
    pools: list[Closeable]


def create_routes(settings: Settings, services: Services) -> Routes:
    """Returns the routes; where two match a path, the first one answers."""
    limits, server = settings.limits, settings.server
    admission, held, validator = services.admission, services.held, services.validator
    job_routes = queue.QueueRoutes(
        services.jobs.service,
        services.jobs.validator,
        admission,
        held.memory,
        limits,
        settings.jobs,
        services.jobs.streams,
        server.public_url,
    )
    document_routes = documents.DocumentRoutes(admission, held, max_characters=limits.job_text_characters)
    catalogue = CatalogueRoutes(validator, admission, services.host_state, held.memory, limits, settings.pauses)
    routes: list[BaseRoute] = [
        *openai.routes(
            services.speech,
            validator,
            admission,
            held,
            max_body_bytes=limits.max_body_bytes,
            started_at=int(time.time()),
        ),
        *tts.routes(
            services.speech,
            validator,
            admission,
            held,
            max_body_bytes=limits.max_body_bytes,
            max_json_audio=settings.memory.json_audio_bytes,
            get_tts=settings.access.get_tts,
        ),
        *links.routes(
            services.links,
            validator,
            admission,
            held.memory,
            max_body_bytes=limits.max_body_bytes,
            max_line_bytes=settings.http.max_header_bytes,
            public_url=server.public_url,
        ),
        *job_routes.routes(),
        *document_routes.routes(),
        *voices.routes(validator, services.voices, held.files),
        *operators.routes(services.host_state),
        *health.routes(
            services.host_state,
            services.metrics,
            services.process_cpu,
            services.history,
            services.degradation,
        ),
        *history.routes(services.history),
        *catalogue.routes(),
        *page.routes(offered=settings.access.page),
        *docs.routes(validator),
    ]
    return Routes(routes, [job_routes, document_routes, catalogue])
