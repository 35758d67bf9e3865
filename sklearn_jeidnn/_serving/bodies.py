"""Bodies of requests, read no further and no longer than is allowed."""

import asyncio
from collections.abc import AsyncIterator

from .refusals import Refusal

# Bodies of the largest size that may be in memory at once.
MOST_LARGE = 8


class Bodies:
    """Reads bodies, and counts the bytes of all that are not answered yet.

    Parameters
    ----------
    max_bytes : int
        Of one body.
    timeout : float
        Seconds in which a body must come.
    """

    def __init__(self, max_bytes: int, timeout: float) -> None:
        self.max_bytes, self.timeout = max_bytes, timeout
        self.n_held = 0

    async def read(self, stream: AsyncIterator[bytes], announced: str | None) -> bytes:
        """The whole body, whose bytes are held until :meth:`release`.

        Parameters
        ----------
        stream : async iterator of bytes
        announced : str or None
            The header Content-Length, which is not believed.

        Raises
        ------
        Refusal
            If it is too long or too slow, or too many bodies are in memory.
        """
        if announced is not None and announced.isdigit() and int(announced) > self.max_bytes:
            raise self._too_long()
        try:
            return await asyncio.wait_for(self._read(stream), self.timeout)
        except asyncio.TimeoutError:
            raise Refusal(
                408, f"the body did not come within {self.timeout:g} seconds.", closes=True
            ) from None

    async def _read(self, stream: AsyncIterator[bytes]) -> bytes:
        parts: list[bytes] = []
        n_bytes = 0
        try:
            async for part in stream:
                n_bytes += len(part)
                self.n_held += len(part)
                parts.append(part)
                self._check(n_bytes)
        except BaseException:
            self.n_held -= n_bytes
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def release(self, body: bytes) -> None:
        """Say that a body is not needed any more."""
        self.n_held -= len(body)

    def _check(self, n_bytes: int) -> None:
        if n_bytes > self.max_bytes:
            raise self._too_long()
        if self.n_held > MOST_LARGE * self.max_bytes:
            raise Refusal(
                503, "too many large requests at once; come again.", retry_after=1, closes=True
            )

    def _too_long(self) -> Refusal:
        return Refusal(
            413,
            f"the body is longer than {self.max_bytes} bytes; send fewer samples at once.",
            closes=True,
        )
