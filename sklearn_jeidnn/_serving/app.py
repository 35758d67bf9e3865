"""The service as an application of FastAPI."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..runtime import Predictor
from .bodies import Bodies
from .refusals import Refusal
from .samples import Asked, read_json, read_request
from .service import OF_PREDICT, OF_SETS, Checked, Service
from .settings import Settings
from .telemetry import batch_lines, watch_lines

# Bodies from here are parsed in a thread.
LARGE = 2**17
CLOSED = 499
# Labels may be of a kind that JSON does not have.
_as_json = json.JSONEncoder(separators=(",", ":"), default=str).encode
logger = logging.getLogger(__name__)
Endpoint = Callable[[Request], Awaitable[Response]]
Answer = Callable[[Asked, Checked], Awaitable[dict[str, Any]]]


def make_app(predictor: Predictor, settings: Settings) -> FastAPI:
    """The application; see :func:`sklearn_jeidnn.serving.create_app`."""
    app = FastAPI(title="sklearn_jeidnn", docs_url=None, redoc_url=None, openapi_url=None)
    service = Service(predictor, settings)
    app.state.service = service
    endpoints = _Endpoints(service)
    for path, method, endpoint in endpoints.all():
        # Plain routes: FastAPI's own take longer than a small network.
        timed = endpoints.answering(path, endpoint)
        app.router.routes.append(Route(path, timed, methods=[method]))
    app.add_exception_handler(HTTPException, _http_error)
    return app


class _Endpoints:
    """What each path answers."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.bodies = Bodies(service.settings.max_bytes, service.settings.body_timeout)

    def all(self) -> list[tuple[str, str, Endpoint]]:
        return [
            ("/predict", "POST", self.predict),
            ("/predict_set", "POST", self.predict_set),
            ("/labels", "POST", self.labels),
            ("/", "GET", self.about),
            ("/health", "GET", self.health),
            ("/ready", "GET", self.ready),
            ("/metrics", "GET", self.metrics),
        ]

    def answering(self, path: str, endpoint: Endpoint) -> Endpoint:
        """The endpoint, counted, with whatever it raises as an answer that shows nothing of the inside."""

        async def answer(request: Request) -> Response:
            start = time.perf_counter()
            response = await _answered(endpoint, request)
            seconds = time.perf_counter() - start
            if request.method == "POST":
                self.service.telemetry.count_request(path, response.status_code, seconds)
            return response

        return answer

    async def predict(self, request: Request) -> Response:
        return await self._predicted(request, OF_PREDICT, self.service.predict, makes_sets=False)

    async def predict_set(self, request: Request) -> Response:
        return await self._predicted(request, OF_SETS, self.service.predict_set, makes_sets=True)

    async def _predicted(
        self, request: Request, options: frozenset[str], answer: Answer, *, makes_sets: bool
    ) -> Response:
        body = await self._body(request)
        try:
            kind = request.headers.get("content-type", "")

            def read() -> tuple[Asked, Checked]:
                asked = read_request(kind, body, request.query_params, options)
                groups = asked.options.get("groups")
                return asked, self.service.check(asked.X, groups, makes_sets)

            asked, checked = await self._in_time(read, len(body))
            return _json(await answer(asked, checked))
        finally:
            self.bodies.release(body)

    async def _in_time(self, read: Callable[[], Any], n_bytes: int) -> Any:
        """Read at once what is small, in a thread what would keep others waiting."""
        if n_bytes < LARGE:
            return read()
        return await asyncio.get_running_loop().run_in_executor(self.service.parser, read)

    async def _body(self, request: Request) -> bytes:
        if "content-encoding" in request.headers:
            raise Refusal(415, "bodies with a Content-Encoding are not read.", closes=True)
        return await self.bodies.read(request.stream(), request.headers.get("content-length"))

    async def labels(self, request: Request) -> Response:
        body = await self._body(request)
        try:
            document = read_json(body)
            if not isinstance(document, dict) or set(document) != {"labels"}:
                raise Refusal(400, 'the body must be an object with "labels" alone.')
            return _json(self.service.take_labels(document["labels"]))
        finally:
            self.bodies.release(body)

    async def about(self, request: Request) -> Response:
        return _json(self.service.about())

    async def health(self, request: Request) -> Response:
        return _json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        waiting, most = self.service.batcher.n_queued, self.service.settings.max_queue
        if waiting >= most:
            raise Refusal(503, f"{waiting} samples are waiting.", retry_after=1)
        return _json({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        service = self.service
        await service.watch_all()
        lines = [
            *service.telemetry.lines(),
            *batch_lines(service.batcher.batch_sizes, service.batcher.n_queued),
            *watch_lines(service.points.ready),
        ]
        return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


async def _answered(endpoint: Endpoint, request: Request) -> Response:
    try:
        return await endpoint(request)
    except Refusal as refusal:
        return _json({"error": refusal.message}, refusal.status, refusal.headers)
    except ClientDisconnect:
        return Response(status_code=CLOSED)
    except Exception as error:
        # Its message may hold what was sent.
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        where = "" if frame is None else f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
        logger.error("%s at %s", type(error).__name__, where)
        return _json({"error": "internal error"}, 500)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    return _json({"error": f"{error.detail}"}, error.status_code, headers)


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(_as_json(document).encode(), status, headers, media_type="application/json")
