"""A chat-completions server in one event loop: keeps connections, works on many requests at once, and can be full."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]


def said(*texts: str, **usage: Any) -> Json:
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} for text in texts]
    return {"choices": choices, **({"usage": usage} if usage else {})}


@dataclass
class Busy:
    """The server, and what it saw.

    Args:
        respond: the reply to a body; a pair of status and reply where it is none of 200.
        queue: requests at once, above which it answers 503.
        seconds: what each request takes.
        beside: replies to other paths, the posted body given; the same pair where it is no 200.
    """

    respond: Callable[[Json], Any] = lambda body: said("Yes.")
    queue: int = 10**9
    seconds: float = 0.0
    beside: dict[str, Callable[[Json], Any]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    bodies: list[Json] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)
    answered: int = 0
    refused: int = 0
    most_under_way: int = 0
    base_url: str = ""
    _under_way: int = 0

    def __enter__(self) -> Busy:
        self._loop, ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        self._loop.run_until_complete(self._serve(ready))
        self._loop.close()

    async def _serve(self, ready: threading.Event) -> None:
        self._over = asyncio.Event()
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        self.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        ready.set()
        await self._over.wait()
        await runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}  # those that still sleep
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        if request.path != "/v1/chat/completions":
            reply = self.beside.get(request.path)
            found = reply(body) if reply else (404, {"error": "no such page"})
            status, content = found if isinstance(found, tuple) else (200, found)
            return web.json_response(content, status=status)
        self.connections.add(id(request.transport))
        if self._under_way >= self.queue:
            self.refused += 1
            return web.json_response({"error": {"message": "the queue is full"}}, status=503)
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)
        self.bodies.append(body)
        await asyncio.sleep(self.seconds)
        self._under_way -= 1
        reply = self.respond(body)
        status, content = reply if isinstance(reply, tuple) else (200, reply)
        self.answered += status == 200
        return web.json_response(content, status=status, headers=self.headers)
