"""The application under uvicorn, which waits for no client that sends nothing."""

import asyncio
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.auto import AutoHTTPProtocol

# Seconds after which a connection without a whole head of a request is closed.
PATIENCE = 10.0
SHUTDOWN_SECONDS = 30


class ImpatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # h11's or httptools'
    """Closes connections on which no request begins: uvicorn itself waits for the first one without end."""

    _cycle_seen: Any = None
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._patience = self.loop.call_later(PATIENCE, self._close_if_idle)

    def _close_if_idle(self) -> None:
        """Close the connection if no request ran, began or ended since the last look."""
        cycle = self.cycle
        is_running = cycle is not None and not cycle.response_complete
        if not is_running and cycle is self._cycle_seen:
            self.transport.close()
            return
        self._cycle_seen = cycle
        self._wait()


def run(app: FastAPI, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; what was begun is then finished."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        http=ImpatientProtocol,
        ws="none",
        # Its warnings are of what clients send.
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
