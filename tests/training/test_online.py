"""TRL's GRPO trainer on a tiny model, with a reward of the test's own; skipped without TRL (the extra `online`)."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from selfpriority.backends import batches
from selfpriority.errors import WorkFailed
from selfpriority.phases.align import _drawing
from selfpriority.recipe import HfBackend, Recipe, Sample
from selfpriority.records import Message, Prompt
from selfpriority.training.align import Places

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
if not importlib.util.find_spec("trl"):
    pytest.skip("TRL is not installed: the extra `online` brings it", allow_module_level=True)

from selfpriority.training.checkpoints import newest
from selfpriority.training.online import Task, train_online

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]  # importing TRL takes half a minute
PROMPTS = [Prompt(name, (Message("user", f"What is {name}?"),)) for name in ("a", "b", "c", "d")]


draw = _drawing(Sample(n=4, max_new_tokens=8))


def recipe_of(model: Path, **align: object) -> Recipe:
    fields = {"method": "grpo", "rows": "online", "learning_rate": 1e-2, "dtype": "float32", "tokens_per_step": 32}
    sample = {"n": 4, "max_new_tokens": 8}
    return Recipe.model_validate({"model": str(model), "prompts": "p", "sample": sample, "align": {**fields, **align}})


def places(folder: Path) -> Places:
    return Places(folder / "policy", folder / "training.jsonl", folder / "checkpoints")


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


def test_the_policy_is_moved_by_the_reward_and_saved_as_every_policy(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    asked: list[tuple[str, str]] = []

    def reward(prompts, answers):
        asked.extend((prompt.id, answer.prompt_id) for prompt, answer in zip(prompts, answers, strict=True))
        return [float(len(answer.text)) for answer in answers]

    trained = train_online(Task(PROMPTS, reward, 8, draw), str(tiny_model), recipe_of(tiny_model), places(tmp_path))
    assert (trained.n_steps, trained.dropped, trained.resumed_from) == (4, (), 0)
    assert sorted(asked) == sorted((prompt.id, prompt.id) for prompt in PROMPTS for _ in range(4))
    rows = log(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["n_steps"] == 4 and row["reward"] > 0 for row in rows)
    policy, start = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for folder in (tmp_path / "policy", tiny_model)
    )
    assert any(not torch.equal(a, b) for a, b in zip(policy.parameters(), start.parameters(), strict=True))
    assert not (tmp_path / "checkpoints").exists()


def test_adapters_are_trained_and_saved_as_adapters(tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_model, lora={"r": 4}, beta=0.01)
    task = Task(PROMPTS[:1], lambda _, answers: [float(len(answer.text)) for answer in answers], 8, draw)
    train_online(task, str(tiny_model), recipe, places(tmp_path))
    assert (tmp_path / "policy" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("n", "tokens_per_step", "n_steps"), [(4, 100, 4), (4, 5900, 4), (4, 6100, 2), (3, 9000, 2), (4, 10**6, 1)]
)
def test_a_step_has_as_many_tokens_as_others_have_and_no_prompt_is_left_out(
    tiny_model: Path, tmp_path: Path, n: int, tokens_per_step: int, n_steps: int
) -> None:
    seen: set[str] = set()

    def reward(prompts, answers):
        seen.update(prompt.id for prompt in prompts)
        return [float(len(answer.text)) for answer in answers]

    recipe = recipe_of(tiny_model, tokens_per_step=tokens_per_step)
    trained = train_online(Task(PROMPTS[:n], reward, 1000, draw), str(tiny_model), recipe, places(tmp_path))
    assert trained.n_steps == n_steps
    assert seen == {prompt.id for prompt in PROMPTS[:n]}


@pytest.mark.parametrize(("max_batch", "times"), [(96, 1), (15, 2), (8, 2), (1, 4)])
def test_answers_are_drawn_at_once_as_far_as_the_backend_has_room(
    tiny_model: Path, tmp_path: Path, max_batch: int, times: int
) -> None:
    rows: list[int] = []

    def reward(prompts, answers):
        rows.append(len(answers))
        return [float(len(answer.text)) for answer in answers]

    recipe = recipe_of(tiny_model, tokens_per_step=10**6)
    recipe = recipe.model_copy(update={"backend": HfBackend(max_batch=max_batch)})
    trained = train_online(Task(PROMPTS, reward, 8, draw), str(tiny_model), recipe, places(tmp_path))
    assert trained.n_steps == 1
    assert rows == [16 // times] * times, "a row an answer"


@pytest.mark.parametrize("who", ["nobody", "the judge"])
def test_an_interrupt_loses_no_step_whatever_the_clock_says(tiny_model: Path, tmp_path: Path, who: str) -> None:
    """A signal waits for the end of its step, unless whoever is asked for rewards goes on with it as a server does."""
    recipe, n_asked = recipe_of(tiny_model), 0

    def reward(prompts, answers):
        nonlocal n_asked
        n_asked += 1
        if n_asked == 3:
            signal.raise_signal(signal.SIGINT)
            if who == "the judge":
                raise KeyboardInterrupt
        return [float(len(answer.text)) for answer in answers]

    with pytest.raises(KeyboardInterrupt):
        train_online(Task(PROMPTS, reward, 8, draw), str(tiny_model), recipe, places(tmp_path))
    n_done = 3 if who == "nobody" else 2
    assert newest(tmp_path / "checkpoints") == f"checkpoint-{n_done}"
    trained = train_online(Task(PROMPTS, reward, 8, draw), str(tiny_model), recipe, places(tmp_path))
    assert (trained.resumed_from, trained.n_steps, trained.is_interrupted) == (n_done, 4, False)
    assert [row["step"] for row in log(tmp_path)] == [1, 2, 3, 4]


def test_each_prompt_is_read_once_and_a_training_that_goes_on_draws_what_it_would_have(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Its policy is that of a training which was not interrupted."""

    def trained(folder: Path, stops_at: int | None) -> list[tuple[list[int], int]]:
        seen: list[tuple[list[int], int]] = []

        def watched(model, prompts, copies, ends, seed):
            assert not model.training
            assert len(set(map(tuple, prompts))) == len(prompts)
            seen.append((list(copies), seed))
            return draw(model, prompts, copies, ends, seed)

        def reward(prompts, answers):
            if stops_at == len(seen):
                signal.raise_signal(signal.SIGINT)
            return [float(len(answer.text)) for answer in answers]

        recipe = recipe_of(tiny_model, tokens_per_step=2 * 4000)
        asked = [Prompt(name, (Message("user", f"What is {name}?"),)) for name in "abcdefgh"]
        train_online(Task(asked, reward, 1000, watched), str(tiny_model), recipe, places(folder))
        return seen

    whole = trained(tmp_path / "whole", None)
    assert [copies for copies, _ in whole] == [[4, 4]] * 4
    assert len({seed for _, seed in whole}) == 4
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts", 2)
    assert trained(tmp_path / "parts", None) == whole[2:]
    ours, theirs = (load_file(tmp_path / each / "policy" / "model.safetensors") for each in ("whole", "parts"))
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


@pytest.mark.parametrize("lora", [None, {"r": 4}], ids=["whole weights", "adapters"])
def test_prompts_that_need_several_passes_are_drawn_in_bfloat16_too(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: object
) -> None:
    monkeypatch.setattr(batches, "PASS_TOKENS", 16)
    recipe = recipe_of(tiny_model, dtype="bfloat16", tokens_per_step=10**6, lora=lora)
    asked = [Prompt(str(n), (Message("user", "Tell me " + "more " * n),)) for n in (1, 5, 20, 40)]
    task = Task(asked, lambda _, answers: [float(len(answer.text)) for answer in answers], 8, draw)
    assert train_online(task, str(tiny_model), recipe, places(tmp_path)).n_steps == 1


def test_a_prompt_that_a_step_holds_twice_is_answered_anew(tiny_model: Path, tmp_path: Path) -> None:
    seen: list[tuple[list[list[int]], int]] = []

    def watched(model, prompts, copies, ends, seed):
        seen.append((prompts, seed))
        return draw(model, prompts, copies, ends, seed)

    recipe = recipe_of(tiny_model, tokens_per_step=10**6)
    recipe = recipe.model_copy(update={"backend": HfBackend(max_batch=1)})
    task = Task([PROMPTS[0]] * 3, lambda _, answers: [0.0] * len(answers), 8, watched)
    assert train_online(task, str(tiny_model), recipe, places(tmp_path)).n_steps == 1
    assert len(seen) == 3
    assert seen[0][0] == seen[1][0] == seen[2][0]
    assert len({seed for _, seed in seen}) == 3


def test_an_answer_ends_as_the_chat_template_ends_a_turn_whatever_the_model_says(
    tiny_model: Path, tmp_path: Path
) -> None:
    """As fine-tuned chat models do whose base knew another end."""
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    for name in ("config.json", "generation_config.json"):
        if (other / name).is_file():
            found = json.loads((other / name).read_text())
            (other / name).write_text(json.dumps({**found, "eos_token_id": None}))
    seen: set[frozenset[int]] = set()

    def watched(model, prompts, copies, ends, seed):
        seen.add(ends)
        return draw(model, prompts, copies, ends, seed)

    task = Task(PROMPTS[:1], lambda _, answers: [0.0] * len(answers), 8, watched)
    train_online(task, str(other), recipe_of(other), places(tmp_path))
    (ends,) = seen
    assert AutoTokenizer.from_pretrained(other).eos_token_id in ends


def test_a_policy_that_diverged_is_told_by_the_fields_of_training(tiny_model: Path, tmp_path: Path) -> None:
    def diverged(*_: object) -> list[list[int]]:
        raise WorkFailed("the model's next-token distribution is not finite; try backend.dtype: float32")

    task = Task(PROMPTS[:1], lambda _, answers: [0.0] * len(answers), 8, diverged)
    with pytest.raises(WorkFailed, match=r"at step 1: .* not finite; try a lower align.learning_rate or align.dtype"):
        train_online(task, str(tiny_model), recipe_of(tiny_model), places(tmp_path))


def test_an_interrupt_in_the_last_step_leaves_a_policy(tiny_model: Path, tmp_path: Path) -> None:
    def reward(prompts, answers):
        signal.raise_signal(signal.SIGTERM)
        return [float(len(answer.text)) for answer in answers]

    trained = train_online(Task(PROMPTS[:1], reward, 8, draw), str(tiny_model), recipe_of(tiny_model), places(tmp_path))
    assert (trained.n_steps, trained.is_interrupted) == (1, True)
    assert (tmp_path / "policy" / "config.json").is_file()


def test_an_interrupted_training_goes_on_from_its_last_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    recipe, n_asked = recipe_of(tiny_model, checkpoint_minutes=1e-6), 0

    def interrupted(prompts, answers):
        nonlocal n_asked
        n_asked += 1
        if n_asked == 3:
            raise KeyboardInterrupt
        return [float(len(answer.text)) for answer in answers]

    with pytest.raises(KeyboardInterrupt):
        train_online(Task(PROMPTS, interrupted, 8, draw), str(tiny_model), recipe, places(tmp_path))
    (tmp_path / "checkpoints" / "checkpoint-9").mkdir()  # one that was cut short
    trained = train_online(Task(PROMPTS, interrupted, 8, draw), str(tiny_model), recipe, places(tmp_path))
    assert (trained.resumed_from, trained.n_steps, n_asked) == (2, 4, 5)
    assert 0 < trained.n_tokens_here < trained.n_tokens  # beside the seconds of this process
    assert [row["step"] for row in log(tmp_path)] == [1, 2, 3, 4]
