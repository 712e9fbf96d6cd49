"""How much of an engine's speed is left when a round is collected through this program?

    python benchmarks/collect.py --backend vllm --python .venv-vllm/bin/python --prompts 64 --n 8 --json
    python benchmarks/collect.py --backend vllm --python .venv-vllm/bin/python --distilabel OTHER/bin/python --json
    python benchmarks/collect.py --backend hf --prompts 32 --n 8 --json

The same work several ways, in turn and `--rounds` times, each way in a process of its own that opens its model before
the clock starts. With vLLM it is a whole round of shipped prompts, candidates, ratings on two objectives, one refined
answer and its ratings: through this program (`ours`); all that it asked in one list by the engine alone, as it comes
(`engine`) and in one process, as ours runs it (`engine-1`); and by distilabel's pipeline of the same steps against
vLLM's server. `ratio_to_engine` is against the faster of the two, by seconds; `idle_share` is the share of our time in
which the engine had nothing to compute, `rating_share` the one in which it rated.

With `--backend hf` answers are drawn alone, by ours with transformers (`hf`) and by what everybody writes first
(`plain-N`): its own `generate` over N answers at a time, the longest prompts first, from the same distribution;
`ratio_to_plain` is against the best N.

CPU seconds are those of all processes of a way, the largest process is that of them with most memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from statistics import median
from typing import Any

from collection import Case, by_distilabel, engine_alone, ours
from drawing import PLAIN, by_plain_loop, by_transformers
from measured import Timed, last_line

WAYS = {"vllm": "ours,engine,engine-1", "hf": "hf,plain-8,plain-16,plain-32,plain-64"}
"""By backend, if nothing else is asked for."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=list(WAYS), default="vllm")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment that has vLLM")
    parser.add_argument("--distilabel", default="", help="interpreter of one that has distilabel: it is measured too")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=112, help="of an answer, at most: the demo's")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--scales", choices=["first", "last"], default="first", help="where the judge reads them")
    parser.add_argument("--memory-share", type=float, default=0.25, help="of all memory, for the engine")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ways", help="which, in the order of a round")
    parser.add_argument("--eager", action="store_true", help="the engine compiles nothing: it starts sooner")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--noted", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    case = Case(**{field.name: getattr(given, field.name) for field in fields(Case)})
    if given.child:
        print(json.dumps(asdict(_measured(given.child, case, given.noted))))
        return 0
    ways = given.ways or ",".join(filter(None, (WAYS[given.backend], given.distilabel and "distilabel")))
    with tempfile.TemporaryDirectory() as folder:
        noted = Path(folder) / "asked.json"
        timed = [_in_a_process(way, case, noted) for _ in range(given.rounds) for way in ways.split(",")]
    print(json.dumps(told(case, timed), indent=None if given.json else 2))
    return 0


def told(case: Case, timed: Sequence[Timed]) -> dict[str, Any]:
    """What the ways took, in the middle of the rounds."""
    by_way = {each.way: [other for other in timed if other.way == each.way] for each in timed}

    def middle(value: Callable[[Timed], float]) -> dict[str, float]:
        return {way: median(map(value, rows)) for way, rows in by_way.items()}

    rates, seconds, cpu = middle(lambda e: e.rate), middle(lambda e: e.seconds), middle(lambda e: e.cpu_seconds)
    told: dict[str, Any] = {
        "case": asdict(case),
        "seconds": seconds,
        "prompts_per_second": {way: case.prompts / each for way, each in seconds.items()},
        "tokens_per_second": rates,
        "cpu_seconds": cpu,
        "largest_process_mb": {way: max(each.peak_mb for each in rows) for way, rows in by_way.items()},
    }
    if plain := [rate for way, rate in rates.items() if way.startswith(PLAIN)]:
        told["ratio_to_plain"] = rates["hf"] / max(plain)
    if own := by_way.get("ours"):
        engines = [way for way in ("engine", "engine-1") if way in by_way]
        told["ratio_to_engine"] = min(seconds[way] for way in engines) / seconds["ours"] if engines else None
        told["ratio_to_engine_by_cpu"] = min(cpu[way] for way in engines) / cpu["ours"] if engines else None
        told["ratio_to_peer"] = seconds["distilabel"] / seconds["ours"] if "distilabel" in by_way else None
        told["idle_share"] = median(1 - each.busy_seconds / each.seconds for each in own)
        told["rating_share"] = median(each.rating_seconds / each.seconds for each in own)
        told["requests_per_prompt"] = own[0].requests / case.prompts
    told["rounds"] = [{**asdict(each), "rate": each.rate} for each in timed]
    return told


def _in_a_process(way: str, case: Case, noted: Path) -> Timed:
    print(f"{way} ...", file=sys.stderr, flush=True)
    said = {name.replace("_", "-"): value for name, value in asdict(case).items() if name != "eager"}
    command = [sys.executable, __file__, *[f"--{name}={value}" for name, value in said.items()]]
    command += ["--eager"] if case.eager else []
    timed = Timed(**last_line([*command, "--child", way, f"--noted={noted}"]))
    # told at once, for a way that fails later ends the program
    print(f"{way}: {timed.seconds:.1f} s, {timed.rate:.0f} tokens/s", file=sys.stderr, flush=True)
    return timed


def _measured(way: str, case: Case, noted: Path) -> Timed:
    """One way, once, in this process."""
    if way.startswith(PLAIN):
        return by_plain_loop(case, int(way.removeprefix(PLAIN)))
    match way:
        case "ours":
            return ours(case, noted)
        case "engine" | "engine-1":
            return engine_alone(case, noted, way)
        case "distilabel":
            return by_distilabel(case)
        case "hf":
            return by_transformers(case)
        case _:
            raise SystemExit(f"--ways: there is no {way!r}")


if __name__ == "__main__":
    raise SystemExit(main())
