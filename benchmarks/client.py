"""How many requests a second does the client of servers make, and what does each cost its processor?

    python benchmarks/client.py                                  2,000 requests of 200 ms, at most 256 at once
    python benchmarks/client.py --queue 40                       the server answers 503 to more than 40 at once
    python benchmarks/client.py --slots 40                       the server works on 40 at once and queues the others
    python benchmarks/client.py --old f880be3 --json             and the client as it was at a commit; JSON

The server is aiohttp.web in a process of its own on this machine, and answers every request after a delay. CPU is user
and system time of the client's process, from the first request to the last answer; `bare` is aiohttp alone, posting the
same bodies. Exits with 1 if a request of ours costs more than 250 us, or more connections were open than were allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST_MICROSECONDS = 250.0
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Measured:
    """One client's run."""

    client: str
    requests: int
    answered: int
    per_second: float
    cpu_us: float
    """Microseconds of the client's processor a request."""
    connections: int
    """The most that were open at once, as the server saw them."""
    refused: int
    """Requests that the server answered 503."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--delay", type=float, default=0.2, help="seconds that the server takes for each")
    parser.add_argument("--queue", type=int, default=0, help="requests at once above which the server answers 503")
    parser.add_argument("--slots", type=int, default=0, help="requests that the server works on at once; others wait")
    parser.add_argument("--old", metavar="COMMIT", help="measure the client of that commit too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options)
    if options.child:
        return child(options)
    found = [run("bare", options, ROOT / "src"), run("ours", options, ROOT / "src")]
    if options.old:
        with tempfile.TemporaryDirectory() as folder:
            source = subprocess.run(["git", "archive", options.old, "src"], cwd=ROOT, check=True, capture_output=True)
            subprocess.run(["tar", "-x", "-C", folder], input=source.stdout, check=True)
            found.append(run("old", options, Path(folder) / "src"))
    print(json.dumps([asdict(one) for one in found], indent=1) if options.json else table(found))
    ours = found[1]
    good = ours.cpu_us <= MOST_MICROSECONDS and ours.connections <= options.concurrency
    return 0 if good and ours.answered == ours.requests else 1


def run(client: str, options: argparse.Namespace, source: Path) -> Measured:
    """One client in a process of its own against a fresh server."""
    same = [f"--{name}={getattr(options, name)}" for name in ("requests", "concurrency", "delay", "queue", "slots")]
    command = [sys.executable, __file__, *same]
    with subprocess.Popen([*command, "--serve"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        try:
            environment = {**os.environ, "PYTHONPATH": str(source), "NO_PROXY": HOST}
            asking = [*command, f"--child={client}", f"--url={url}"]
            done = subprocess.run(asking, env=environment, check=True, capture_output=True, text=True)
            with urllib.request.urlopen(f"{url}/seen", timeout=30) as reply:
                seen = json.load(reply)
        finally:
            server.terminate()
    told = json.loads(done.stdout.splitlines()[-1])
    return Measured(client, options.requests, told["answered"], told["per_second"], told["cpu_us"], **seen)


def child(options: argparse.Namespace) -> int:
    """Makes the requests and prints what they took; imports and preparation do not count."""
    make = bare(options) if options.child == "bare" else package(options)
    before, began = time.process_time(), time.monotonic()
    answered = make()
    cpu, seconds = time.process_time() - before, time.monotonic() - began
    n = options.requests
    print(json.dumps({"answered": answered, "per_second": n / seconds, "cpu_us": 1e6 * cpu / n}))
    return 0


def package(options: argparse.Namespace) -> Callable[[], int]:
    """The package's own client, of whichever version is on the path; it returns how many were answered."""
    from selfpriority.backends.openai import OpenaiModel
    from selfpriority.language_model import Completion, Generate, ask
    from selfpriority.recipe import OpenaiBackend
    from selfpriority.records import Message

    settings = OpenaiBackend(kind="openai", base_url=f"{options.url}/v1", concurrency=options.concurrency)
    model = OpenaiModel("m", settings)
    asked = [Generate((Message("user", text),), 1, 0.7, 0.9, 64, i) for i, text in enumerate(questions(options))]
    return lambda: sum(isinstance(answer, Completion) for answer in ask(model, asked))


def bare(options: argparse.Namespace) -> Callable[[], int]:
    """Only aiohttp with a semaphore: no tries, no reading of what a reply says beyond its JSON."""
    import aiohttp

    async def work() -> int:
        connector, places = aiohttp.TCPConnector(limit=options.concurrency), asyncio.Semaphore(options.concurrency)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def one(text: str) -> bool:
                body = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 64, "n": 1}
                async with places, session.post(f"{options.url}/v1/chat/completions", json=body) as reply:
                    return reply.status == 200 and bool((await reply.json())["choices"])

            return sum(await asyncio.gather(*map(one, questions(options))))

    return lambda: asyncio.run(work())


def questions(options: argparse.Namespace) -> list[str]:
    return [f"Question {i}: what is safe?" for i in range(options.requests)]


def serve(options: argparse.Namespace) -> int:
    """Answers chat completions after a delay until it is ended; prints its address first."""
    from aiohttp import web

    open_now: set[object] = set()
    seen = {"connections": 0, "refused": 0}
    under_way = 0
    slots = asyncio.Semaphore(options.slots or 10**9)
    choice = {"index": 0, "message": {"role": "assistant", "content": "It is. " * 10}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 20, "completion_tokens": 30, "total_tokens": 50}
    answer = json.dumps({"id": "1", "model": "m", "choices": [choice], "usage": usage})

    async def complete(request: web.Request) -> web.Response:
        nonlocal under_way
        await request.read()
        open_now.add(request.transport)
        live = {one for one in open_now if one is not None and not one.is_closing()}
        open_now.intersection_update(live)
        seen["connections"] = max(seen["connections"], len(live))
        if options.queue and under_way >= options.queue:
            seen["refused"] += 1
            return web.json_response({"error": {"message": "the queue is full"}}, status=503)
        under_way += 1
        try:
            async with slots:
                await asyncio.sleep(options.delay)
        finally:
            under_way -= 1
        return web.Response(text=answer, content_type="application/json")

    async def counts(_: web.Request) -> web.Response:
        return web.json_response(seen)

    async def start() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", complete)
        app.router.add_get("/seen", counts)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0, backlog=1024)
        await site.start()
        print(f"http://{HOST}:{runner.addresses[0][1]}", flush=True)
        await asyncio.Event().wait()

    asyncio.run(start())
    return 0


def table(found: list[Measured]) -> str:
    lines = ["client  answered  requests/s  CPU us a request  connections  503s"]
    for one in found:
        lines.append(
            f"{one.client:6}  {one.answered:8,}  {one.per_second:10,.0f}  {one.cpu_us:16,.0f}  {one.connections:11}  "
            f"{one.refused:4}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
