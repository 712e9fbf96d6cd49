import json
import os
import shutil
import time
from pathlib import Path

import pytest

from selfpriority.errors import InputError, WorkFailed
from selfpriority.models import embedded
from selfpriority.models.files import adapter_base, resolve
from selfpriority.models.fingerprint import fingerprint
from selfpriority.phases.judge_names import SHIPPED_HEADS


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def test_a_folder_is_itself(tiny_model: Path) -> None:
    assert resolve(str(tiny_model)) == str(tiny_model)


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors"])
def test_a_folder_without_config_or_weights(copy: Path, lost: str) -> None:
    (copy / lost).unlink()
    with pytest.raises(InputError) as caught:
        resolve(str(copy))
    [line] = caught.value.lines
    assert str(copy) in line
    assert lost in line


def test_a_lost_shard_is_named(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"has no model-2\.safetensors"):
        resolve(str(copy))


def test_a_file_is_no_model(copy: Path) -> None:
    with pytest.raises(InputError, match="is a file"):
        resolve(str(copy / "config.json"))


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'smollm2-135' is no .* did you mean smollm2-135m\?"):
        resolve("smollm2-135")


def test_hub_id_that_cannot_be_fetched_is_one_line() -> None:
    with pytest.raises(InputError) as caught:
        resolve("nobody-at-all/no-such-model")
    [line] = caught.value.lines
    assert line.startswith("model: nobody-at-all/no-such-model is no folder here, and the hub did not give it: ")
    assert "\n" not in line


def test_hub_id_that_is_not_here_is_its_own_fingerprint() -> None:
    assert fingerprint("nobody-at-all/no-such-model") == "nobody-at-all/no-such-model"


def test_fingerprint_is_of_content_not_of_place(tiny_model: Path, copy: Path) -> None:
    assert fingerprint(str(copy)) == fingerprint(str(tiny_model))
    assert len(fingerprint(str(copy))) == 64


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"])
def test_fingerprint_changes_with_every_file(copy: Path, file: str) -> None:
    before = fingerprint(str(copy))
    content = bytearray((copy / file).read_bytes())
    content[-1] ^= 1
    (copy / file).write_bytes(content)
    assert fingerprint(str(copy)) != before


def test_fingerprint_knows_a_file_of_the_same_size_and_time(copy: Path) -> None:
    weights = copy / "model.safetensors"
    before, stat = fingerprint(str(copy)), weights.stat()
    for put in (lambda content: weights.write_bytes(content), lambda content: replaced(weights, content)):
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        put(content)
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
        after = fingerprint(str(copy))
        assert after != before
        before = after


def replaced(file: Path, content: bytes) -> None:
    """Copied over by another name, as tools do."""
    file.with_suffix(".new").write_bytes(content)
    file.with_suffix(".new").replace(file)


def test_training_leftovers_do_not_change_the_fingerprint(copy: Path) -> None:
    before = fingerprint(str(copy))
    (copy / "trainer_state.json").write_text("{}")
    (copy / "optimizer.pt").write_bytes(b"x")
    assert fingerprint(str(copy)) == before


def test_second_fingerprint_reads_no_weights(copy: Path) -> None:
    with (copy / "model.safetensors").open("ab") as file:
        file.truncate(400_000_000)  # sparse: costs no disk, but time to read
    start = time.perf_counter()
    first = fingerprint(str(copy))
    middle = time.perf_counter()
    assert fingerprint(str(copy)) == first
    assert time.perf_counter() - middle < (middle - start) / 5


def test_fingerprint_survives_a_damaged_record(copy: Path, own_cache: Path) -> None:
    first = fingerprint(str(copy))
    [record] = (own_cache / "selfpriority" / "fingerprints").glob("*.json")
    record.write_text("{")
    assert fingerprint(str(copy)) == first


def test_adapter_has_a_base_and_the_bases_content(copy: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(copy)}))
    with pytest.raises(InputError, match="adapter_model"):
        resolve(str(adapter))
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    assert resolve(str(adapter)) == str(adapter)
    assert adapter_base(adapter) == str(copy)
    assert adapter_base(copy) is None
    before = fingerprint(str(adapter))
    (copy / "config.json").write_text("{}")
    assert fingerprint(str(adapter)) != before


def test_conversion_is_atomic(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"gguf")
    monkeypatch.setattr(embedded.importlib.metadata, "version", lambda _: "1")

    def fails(_: Path, folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("killed")

    monkeypatch.setattr(embedded, "_convert", fails)
    with pytest.raises(RuntimeError, match="killed"):
        embedded.converted("smollm2-135m", gguf)
    assert list((own_cache / "selfpriority").iterdir()) == []


def test_embedded_model_is_converted_once(embedded_model: Path) -> None:
    names = set(os.listdir(embedded_model))
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    assert (embedded_model / "model.safetensors").stat().st_size > 500_000_000


def test_the_version_that_converted_is_no_content_of_an_embedded_model(embedded_model: Path) -> None:
    """Else heads that ship would be called those of other weights wherever another version is installed."""
    for name in ("config.json", "generation_config.json"):
        assert "transformers_version" not in (embedded_model / name).read_text()
    for name in ("demo-train", "demo-eval", "demo-contrast", "ranking"):
        assert fingerprint(str(embedded_model)) in (SHIPPED_HEADS / name / "card.json").read_text()


def test_a_file_that_is_no_gguf_says_so_and_leaves_nothing(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conversion's own process is the one that fails."""
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"no model")
    monkeypatch.setattr(embedded.importlib.metadata, "version", lambda _: "1")
    with pytest.raises(WorkFailed, match=r"m\.gguf: cannot be converted: \w+"):
        embedded.converted("smollm2-135m", gguf)
    assert list((own_cache / "selfpriority").iterdir()) == []
