"""Requests that are not answered, and what is said instead."""

import contextlib
from collections.abc import Iterator


class Refusal(Exception):
    """A request that is refused, with a status of HTTP and a message for who sent it.

    Parameters
    ----------
    status : int
    message : str
    retry_after : int or None, default=None
        Seconds after which to come again.
    closes : bool, default=False
        Whether the connection ends, since more of the request may come that nobody reads.
    """

    def __init__(
        self, status: int, message: str, *, retry_after: int | None = None, closes: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {} if retry_after is None else {"retry-after": str(retry_after)}
        if closes:
            self.headers["connection"] = "close"


@contextlib.contextmanager
def refusing(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds, which say what is wrong with samples or options, into what is said to the client."""
    try:
        yield
    except kinds as error:
        raise Refusal(422, str(error)) from None
