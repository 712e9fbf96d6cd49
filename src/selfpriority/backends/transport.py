"""Bytes to a server and back over connections that are kept: one try of one request, in time and in size.

The key goes into one header and nowhere else. Knows HTTP; what a reply means is in `http.py`.
"""

from __future__ import annotations

import io
import os
import ssl
import urllib.parse
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp

from selfpriority.backends.proxies import proxy_of, proxy_variable

MOST_BYTES = 64_000_000
"""Of one reply, unpacked."""
MOST_WORDS = 20_000
"""Bytes of an error that are looked at."""
IDLE = 4.0
"""Seconds a connection without work is kept: less than the 5 after which many servers close theirs."""
LARGE = 2**20
"""Bytes of a request from which aiohttp wants a file in place of the bytes."""


@dataclass(frozen=True)
class Reply:
    """What came over the wire."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    """Of a success the whole body, unpacked; of an error its beginning."""


class Unanswered(Exception):
    """No reply, or none that can be read: the reason of a failure, and its words."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Transport:
    """Connections to one server, at most so many at once; use as an async context manager.

    Args:
        url: what is posted to.
        key: sent as a bearer token unless empty.
        n_connections: the most that are open at once.
    """

    def __init__(self, url: str, key: str, n_connections: int) -> None:
        self._url, self._proxy, self._n_connections = url, proxy_of(url), n_connections
        self._timeout = aiohttp.ClientTimeout(total=0.0)
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": "selfpriority",
            "Accept-Encoding": "identity",
        }
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    async def __aenter__(self) -> Transport:
        connector = aiohttp.TCPConnector(limit=self._n_connections, keepalive_timeout=IDLE)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            auto_decompress=False,  # a reply's size counts unpacked
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def post(self, body: bytes, seconds: float) -> Reply:
        """The reply to one try, whole within so many seconds.

        Raises:
            Unanswered: `timeout`, `cut` (nobody there, or the connection broke), `server_error` (no HTTP), `garbage`
                (too long, or not packed as it says).
        """
        return await self.ask("POST", self._url, body, seconds)

    async def ask(self, method: str, url: str, body: bytes | None, seconds: float) -> Reply:
        """The same of any address of this server."""
        data: Any = io.BytesIO(body) if body and len(body) > LARGE else body
        if self._timeout.total != seconds:
            self._timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            # no redirect is followed: it would carry the key to whoever is named
            async with self._session.request(
                method, url, data=data, proxy=self._proxy, timeout=self._timeout, allow_redirects=False
            ) as reply:
                read = _whole if reply.status < 300 else _words
                return Reply(reply.status, reply.headers, await read(reply))
        except TimeoutError:
            raise Unanswered("timeout", f"no reply within {seconds:g} s") from None
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, aiohttp.InvalidURL) as error:
            variable = proxy_variable(self._url)
            by = f" through the proxy that {variable} names (NO_PROXY leaves a host out)" if variable else ""
            raise Unanswered("cut", f"cannot be reached{by}: {_why(error)}") from None
        except aiohttp.ClientResponseError:
            raise Unanswered("server_error", "the reply is no HTTP") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unanswered("cut", f"the connection was cut ({type(error).__name__})") from None


def _why(error: Exception) -> str:
    """What the system says; aiohttp's own words name the address once more."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"it answers HTTP {error.status}"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
    if cause is None:
        return type(error).__name__
    if cause.errno is None or isinstance(cause, ssl.SSLError):
        return str(cause)
    return f"[Errno {cause.errno}] {os.strerror(cause.errno) if cause.errno > 0 else cause.strerror}"


async def _whole(reply: aiohttp.ClientResponse) -> bytes:
    """The body within `MOST_BYTES`, packed and unpacked."""
    parts, size = [], 0
    while part := await reply.content.readany():
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            reply.close()
            raise Unanswered("garbage", f"the reply is longer than {MOST_BYTES:,} bytes")
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    return _unpacked(data) if _is_packed(reply) else data


async def _words(reply: aiohttp.ClientResponse) -> bytes:
    """The beginning of an error's body, as far as it comes."""
    try:
        data = b""
        while len(data) < MOST_WORDS and (part := await reply.content.readany()):
            data += part
        if len(data) >= MOST_WORDS:
            reply.close()
        return _unpacked(data) if _is_packed(reply) else data
    except (aiohttp.ClientError, OSError, Unanswered):
        return b""


def _is_packed(reply: aiohttp.ClientResponse) -> bool:
    return reply.headers.get("Content-Encoding", "").lower() == "gzip"


def _unpacked(data: bytes) -> bytes:
    """The body out of its gzip, where it holds no more than `MOST_BYTES`."""
    stream = zlib.decompressobj(wbits=31)
    try:
        found = stream.decompress(data, MOST_BYTES)
    except zlib.error as error:
        raise Unanswered("garbage", "the reply is not the gzip it says it is") from error
    if stream.unconsumed_tail:
        raise Unanswered("garbage", f"the reply is longer than {MOST_BYTES:,} bytes")
    return found


def root_of(base_url: str) -> str:
    """The server's address without the protocol's `/v1`: what vLLM answers beside the protocol lies there."""
    parts = urllib.parse.urlsplit(base_url.rstrip("/"))
    return urllib.parse.urlunsplit(parts._replace(path=parts.path.removesuffix("/v1")))
