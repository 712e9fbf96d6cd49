"""What of a training's movement survives saving: full fine-tuning, adapters, and adapters merged, before and after.

    python benchmarks/survival.py                 # the embedded SmolLM2-135M, float32 training on a CPU; some minutes

The starting weights are rounded to bfloat16 first, for published models are. "Before" is rounding to the nearest
bfloat16, which is how versions up to 0.1.0 saved models of over 1e9 parameters and merged adapters; "after" is what a
training saves now, and how a merged adapter is read now. The margin is that of the pairs trained on, in nats per token.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfpriority.models.files import resolve
from selfpriority.models.weights import open_model
from selfpriority.recipe import Align, Lora
from selfpriority.records import Message, Pair, PairedPool, Pool, Prompt, Rating, Response, Scored
from selfpriority.training.align import Places, train
from selfpriority.training.survival import Tally

GOOD = ("Lock it and tell a grown-up.", "Ask a doctor before you take it.", "Keep it dry and out of reach.")
BAD = ("Just try it, nothing will happen.", "Take all of it at once.", "Leave it lying around.")


def main() -> None:
    """Trains, saves, reads again and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=6)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = exact(asked.model, Path(folder) / "start")
        rows = [
            row
            for name, settings in trainings().items()
            for row in measured(name, settings, start, Path(folder) / name.replace(" ", "-"), asked.steps)
        ]
    print("| training | saved or merged as | movement before | movement after | margin, float32 | before | after |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def trainings() -> dict[str, Align]:
    """The settings by name; one step an epoch, so that epochs are steps."""
    common: dict[str, Any] = {"dtype": "float32", "tokens_per_step": 100_000}
    full = Align(**common, learning_rate=1e-6, save="bfloat16")
    return {
        "full 1e-6": full,
        "adapters 1e-5": Align(**common, learning_rate=1e-5, lora=Lora()),
        "adapters 1e-4": Align(**common, learning_rate=1e-4, lora=Lora()),
    }


def exact(name: str, folder: Path) -> Path:
    """The model with weights that bfloat16 holds exactly."""
    source = resolve(name)
    AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def measured(name: str, settings: Align, start: Path, folder: Path, n_steps: int) -> list[list[str]]:
    """Rows of the table, from the files that a training wrote."""
    folder.mkdir()
    settings = settings.model_copy(update={"epochs": n_steps})
    places = Places(folder / "policy", folder / "training.jsonl", folder / "checkpoints")
    done = train(pools(), start, settings, 0, places)
    assert done.n_steps == n_steps
    if settings.lora is None:
        whole_places = Places(folder / "whole", folder / "whole.jsonl", folder / "whole-checkpoints")
        train(pools(), start, settings.model_copy(update={"save": "float32"}), 0, whole_places)
        whole, after = weights(places.policy.with_name("whole"), torch.float32), weights(places.policy, torch.bfloat16)
    else:
        whole, after = weights(places.policy, torch.float32), weights(places.policy, torch.bfloat16)
    before = {key: weight.to(torch.bfloat16) for key, weight in whole.items()}
    first = weights(start, torch.float32)
    gains = [margin(start, held) - margin(start, first) for held in (whole, before, after)]
    told = [f"{share(first, whole, held):.3f}" for held in (before, after)]
    rows = [[f"{name}, {n_steps} steps", "bfloat16", *told, *(f"{gain:+.5f}" for gain in gains)]]
    if settings.lora is not None:
        rows.append([f"{name}, {n_steps} steps", "adapters, float32", "1.000", "1.000", *[f"{gains[0]:+.5f}"] * 3])
    return rows


def weights(folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """As they are read."""
    return dict(open_model(str(folder), dtype).model.named_parameters())


def share(first: dict[str, Any], whole: dict[str, Any], held: dict[str, Any]) -> float:
    """Of the movement."""
    tally = Tally()
    for name, weight in first.items():
        tally.add(weight, whole[name], held[name])
    return tally.survival("").share


@torch.no_grad()
def margin(start: Path, held: dict[str, Any]) -> float:
    """Mean log-probability per token of the better answers less that of the others, in float32 arithmetic."""
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32).eval()
    for name, weight in model.named_parameters():
        weight.copy_(held[name].float())
    tokenizer = AutoTokenizer.from_pretrained(start)
    found = []
    for pool in pools():
        values = []
        for scored in pool.pool.responses:
            messages = [{"role": "user", "content": pool.pool.prompt.messages[0].content}]
            opened = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            prompt, answer = (
                tokenizer(text, add_special_tokens=False)["input_ids"]
                for text in (opened, scored.response.text + tokenizer.eos_token)
            )
            logps = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            values.append(logps.gather(1, torch.tensor(answer)[:, None]).mean().item())
        found.append(values[0] - values[1])
    return sum(found) / len(found)


def pools() -> list[PairedPool]:
    """A better and a worse answer to each of some questions."""
    made = []
    for number, (good, bad) in enumerate(zip(GOOD * 2, BAD * 2, strict=True)):
        prompt = Prompt(f"p{number}", (Message("user", f"What shall I do with it on day {number}?"),))
        answers = tuple(
            Scored(Response(f"p{number}/{rank}", prompt.id, text, "end", n_tokens=0), (Rating(9.0 - 4 * rank),) * 2)
            for rank, text in enumerate((good, bad))
        )
        made.append(PairedPool(Pool(prompt, answers), (Pair(0, 1, decided_by=0, distance=8.0, gap=8.0),)))
    return made


if __name__ == "__main__":
    main()
