"""What a run trained as one whole model: the same as the adapter on its base, with a card, and never over another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfpriority.errors import InputError, WorkFailed
from selfpriority.inspection.whole_model import write_whole_model
from selfpriority.phases.align import align_step
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.recipe import dump, parse
from selfpriority.run import Run
from selfpriority.storage import write_text

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # by peft


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path) -> Run:
    """A run of one round, and of a system beside it, whose policies are adapters that moved."""
    trained = Run(tmp_path / "run")
    recipe = parse(
        {"model": str(tiny_model), "prompts": "demo", "align": {"lora": {"r": 4}, "dtype": "float32"}}, "r.yaml"
    )
    for number, place in enumerate((trained, Run(trained.folder / "systems" / "sum"))):
        write_text(place.recipe, [dump(recipe)])
        torch.manual_seed(number)
        config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), config)
        adapted.save_pretrained(place.policy(1))
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(place.policy(1))
        with place.recording(align_step(place, Resources(recipe, place, Reporter()), 1)):
            pass
    return trained


@pytest.mark.parametrize("system", ["spa", "sum"])
def test_the_whole_model_is_the_adapter_on_its_base(run: Run, system: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = write_whole_model(run, tmp_path / "whole", system)
    policy = run.policy(1) if system == "spa" else run.folder / "systems" / "sum" / "round-1" / "policy"
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids = torch.tensor([[5, 9, 77, 120]])
    with torch.inference_mode():
        before = base(ids).logits
        adapted = PeftModel.from_pretrained(base, policy)(ids).logits
        whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
    torch.testing.assert_close(whole, adapted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(whole, before, atol=1e-2)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    card = (folder / "README.md").read_text("utf-8")
    assert "library_name: transformers" in card
    assert "All weights: an adapter (LoRA, rank 4) on " in card
    assert "merged into it." in card
    assert not (folder / "adapter_config.json").exists()


def test_nothing_is_written_over_and_what_is_not_there_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match=r"--to: .*taken exists already"):
        write_whole_model(run, tmp_path / "taken")
    with pytest.raises(InputError, match=r"--system: 'swapped' is not trained by this run; it trains spa, sum"):
        write_whole_model(run, tmp_path / "whole", "swapped")
    write_text(run.recipe, [run.recipe.read_text().replace("beta: 2.5", "beta: 2.0")])
    with pytest.raises(WorkFailed, match=r"round-1/align: not done under the present recipe"):
        write_whole_model(run, tmp_path / "whole")
    (run.folder / "merged" / "soup").mkdir(parents=True)
    with pytest.raises(InputError, match=r"'soup' is a whole model already"):
        write_whole_model(run, tmp_path / "whole", "soup")
    assert not (tmp_path / "whole").exists()


def test_a_folder_of_the_users_with_a_like_name_stays(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "whole.partial" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    write_whole_model(run, tmp_path / "whole")
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "whole", "whole.partial"]
