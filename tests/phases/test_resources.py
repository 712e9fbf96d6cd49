"""What a judge's verdicts depend on: its key changes with each of them, and only with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError
from selfpriority.phases import judge_names
from selfpriority.phases.judge_names import judge_key, meant
from selfpriority.recipe import Backend, ByProbe, HfBackend, JudgeSection, OpenaiBackend, ScriptedBackend, parse_judge

CONSTITUTION = load_constitution("harmless-helpful")
SERVER = OpenaiBackend(kind="openai", base_url="http://127.0.0.1:1/v1")


def spec(model: Path, method: str, **fields: Any) -> JudgeSection:
    given = {"reward": "self", "probe": "demo-train"}
    if method == "reward":
        fields["rewards"] = dict.fromkeys(CONSTITUTION.names, str(model))
    return parse_judge({"judge": given.get(method, str(model)), "method": method, **fields}, "judge")


@pytest.mark.parametrize("method", ["expected", "probe", "reward"])
def test_the_order_of_the_objectives_counts(tiny_model: Path, method: str) -> None:
    judge, swapped = spec(tiny_model, method), replace(CONSTITUTION, objectives=CONSTITUTION.objectives[::-1])
    backend = ScriptedBackend(kind="scripted")
    keys = {judge_key(judge, "self", constitution, backend) for constitution in (CONSTITUTION, swapped)}
    assert len(keys) == 2


@pytest.mark.parametrize("method", ["expected", "verbal", "probe", "reward"])
def test_who_runs_the_judge_counts(tiny_model: Path, method: str) -> None:
    backends: list[Backend] = [
        HfBackend(dtype="float32"),
        HfBackend(dtype="bfloat16"),
        ScriptedBackend(kind="scripted"),
    ]
    judge = spec(tiny_model, method)
    assert len({judge_key(judge, str(tiny_model), CONSTITUTION, backend) for backend in backends}) == 3
    faster = HfBackend(dtype="float32", max_batch=2)  # the same answers in less time
    assert judge_key(judge, str(tiny_model), CONSTITUTION, faster) == judge_key(
        judge, str(tiny_model), CONSTITUTION, backends[0]
    )


def test_a_judge_in_words_with_a_backend_of_its_own_is_known_by_that(tiny_model: Path) -> None:
    def key(own: dict[str, str], backend: Backend) -> str:
        return judge_key(spec(tiny_model, "expected", backend=own), "self", CONSTITUTION, backend)

    assert key({"dtype": "float32"}, SERVER) != key({"dtype": "bfloat16"}, SERVER)
    assert key({"dtype": "float32"}, SERVER) == key({"dtype": "float32"}, ScriptedBackend(kind="scripted"))


# of version 0.1.0, but for probes: since heads read a cut answer without an end token, older ratings are none of theirs
KEYS = {
    "probe": (
        {"judge": "demo-train", "method": "probe"},
        "9543683daaf87e69d39aa1517d32fb4753367ed81b5aef2d992d99b918f7fc62",
    ),
    "heads by their name alone": (
        {"judge": "demo-train"},
        "9543683daaf87e69d39aa1517d32fb4753367ed81b5aef2d992d99b918f7fc62",
    ),
    "expected": ({"judge": "self"}, "8321ecc3238a7b0b9a798313ffa1c662651ab277fff99bab8576a442f55c70a9"),
    "verbal": (
        {"judge": "big", "method": "verbal", "max_new_tokens": 64, "mass_floor": 0.25},
        "bb1f469783f948edf38bac83fb5bbfb51c85608f8b87a11cfa9248c1028f4471",
    ),
    "a backend of its own": (
        {"judge": "big", "backend": {"dtype": "bfloat16"}},
        "d1c092c9ea0bbc86708b9beabdbdee400938505f113b315c5cee4876b9f108a3",
    ),
    "reward": (
        {"judge": "self", "method": "reward", "rewards": {"harmlessness": "a", "helpfulness": "b"}},
        "ead9319fb192fd1bd327157ed5336e77da145239c60b1f37550d9fb0a2439098",
    ),
}


@pytest.mark.parametrize(("flat", "key"), KEYS.values(), ids=KEYS)
def test_a_judge_keeps_its_key_while_it_rates_as_it_did(
    monkeypatch: pytest.MonkeyPatch, flat: dict[str, Any], key: str
) -> None:
    """Or every finished run would rate all its answers again. What a model is known by is left out of it."""
    monkeypatch.setattr(judge_names, "model_key", lambda name, b=None: f"model {name} {b.kind if b else None}")
    assert judge_key(meant(parse_judge(flat, "judge")), "policy", CONSTITUTION, HfBackend(dtype="float32")) == key


@pytest.mark.parametrize("method", ["expected", "verbal"])
def test_scales_that_come_first_make_another_key(tiny_model: Path, method: str) -> None:
    keys = {
        judge_key(
            meant(parse_judge({"judge": str(tiny_model), "method": method, **more}, "judge")), "", CONSTITUTION, SERVER
        )
        for more in ({}, {"scales": "last"}, {"scales": "first"})
    }
    assert len(keys) == 2


def test_a_left_over_name_of_heads_beside_another_method_is_refused() -> None:
    assert isinstance(meant(parse_judge({"judge": "demo-train"}, "judge")), ByProbe)
    reward = parse_judge({"judge": "demo-train", "method": "reward", "rewards": {"harmlessness": "m"}}, "judge")
    with pytest.raises(InputError, match=r"'demo-train' names fitted heads, and method reward asks the models"):
        meant(reward)
    with pytest.raises(
        InputError, match=r"'demo-train' names fitted heads, and method contrast makes heads of its own"
    ):
        meant(parse_judge({"judge": "demo-train", "method": "contrast"}, "judge"))
