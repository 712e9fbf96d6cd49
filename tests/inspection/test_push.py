"""`spa push`: the hub's own client sends policy and pairs to a small hub of this machine; what is refused before."""

from __future__ import annotations

import base64
import http.server
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from selfpriority.errors import InputError
from selfpriority.inspection.push import data_shipment, model_shipment
from selfpriority.run import Run


@dataclass
class SmallHub:
    """What a hub was told, and holds."""

    address: str = ""
    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`models/ORG/NAME` -> private, and `files` by name."""
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


class Answers(http.server.BaseHTTPRequestHandler):
    hub: SmallHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.reply({})

    def do_GET(self) -> None:
        self.hub.asked.append(f"GET {self.path}")
        if self.path == "/api/whoami-v2":
            known = self.headers["Authorization"] == "Bearer hf_ours"
            self.reply({"name": "us", "type": "user"} if known else {"error": "Invalid token"}, 200 if known else 401)
            return
        name = self.path.removeprefix("/api/")
        if name in self.hub.repositories:
            found = self.hub.repositories[name]
            self.reply({"id": name.partition("/")[2], "private": found["private"], "sha": "0" * 40})
        else:
            self.reply({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def do_PUT(self) -> None:
        self.hub.objects[self.path.rpartition("/")[2]] = self.body()
        self.reply({})

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"POST {path}")
        body = self.body()
        if path == "/api/repos/create":
            told = json.loads(body)
            kind, owner = told.get("type") or "model", told.get("organization") or "us"
            private = told.get("private", told.get("visibility") == "private")  # as older and newer clients say it
            self.hub.repositories[f"{kind}s/{owner}/{told['name']}"] = {"private": private, "files": {}}
            prefix = "datasets/" if kind == "dataset" else ""
            self.reply({"url": f"{self.hub.address}/{prefix}{owner}/{told['name']}"})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            self.reply({"files": [
                {"path": each["path"], "uploadMode": "lfs" if each["path"].endswith("safetensors") else "regular",
                 "shouldIgnore": False} for each in files
            ]})  # fmt: skip
        elif path.endswith("/info/lfs/objects/batch"):
            self.reply({"transfer": "basic", "objects": [
                {**each, "actions": {"upload": {"href": f"{self.hub.address}/put/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]}, kind="application/vnd.git-lfs+json")  # fmt: skip
        elif "/commit/" in path:
            self.commit(path.removeprefix("/api/").partition("/commit/")[0], body)
        else:
            self.reply({})

    def commit(self, name: str, body: bytes) -> None:
        files = self.hub.repositories[name]["files"]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = self.hub.objects[line["value"]["oid"]]
        self.reply({"commitUrl": f"{self.hub.address}/{name}/commit/{'0' * 40}", "commitOid": "0" * 40})

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(
        self, told: Any, status: int = 200, headers: dict[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    found = SmallHub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Ours", (Answers,), {"hub": found}))
    found.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def push(folder: Path, *arguments: str, stdin: Any = subprocess.DEVNULL, **environment: str) -> Any:
    """What `spa push run` said; the client's own store of large files needs a server of another kind."""
    given = {"HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_ours", "HF_HUB_DISABLE_XET": "1", **environment}
    command = [sys.executable, "-m", "selfpriority", "push", "run", *arguments]
    return subprocess.run(
        command, cwd=folder, stdin=stdin, capture_output=True, text=True, env={**os.environ, **given}, timeout=120
    )


def test_policy_and_pairs_arrive_whole_private_and_without_a_place(hub: SmallHub, finished_run: Path) -> None:
    done = push(finished_run, "--to", "us/mine", "--data", "--yes", HF_ENDPOINT=hub.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"model: {hub.address}/us/mine", f"dataset: {hub.address}/datasets/us/mine"]
    model, data = hub.repositories["models/us/mine"], hub.repositories["datasets/us/mine"]
    assert (model["private"], data["private"]) == (True, True)
    policy = finished_run / "run" / "round-1" / "policy"
    assert set(model["files"]) == {path.name for path in policy.iterdir()}
    assert model["files"]["model.safetensors"] == (policy / "model.safetensors").read_bytes()
    assert b"# " in model["files"]["README.md"]
    assert set(data["files"]) == {"pairs.jsonl", "README.md", "HAZARD.txt"}
    rows = [json.loads(line) for line in data["files"]["pairs.jsonl"].splitlines()]
    assert rows[0]["chosen"][0]["role"] == "assistant"
    everything = b"".join([*model["files"].values(), *data["files"].values()])
    assert str(finished_run).encode() not in everything


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "push: HF_HUB_OFFLINE is set, so nothing can be sent; unset it"),
        ({"HF_TOKEN": "", "HF_TOKEN_PATH": "nowhere"}, "push: no token of the hub here"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "push: http://127.0.0.1:9 does not answer; nothing was sent"),
        ({"HF_TOKEN": "hf_wrong"}, "push: the hub does not take the token (401)"),
    ],
)
def test_what_cannot_be_sent_is_told_in_a_line(hub, finished_run, environment, said):
    done = push(finished_run, "--yes", **{"HF_ENDPOINT": hub.address, **environment})
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert said in line
    assert [each for each in hub.asked if each.startswith("POST")] == []


def test_it_asks_and_nobody_is_no_answer(hub, finished_run):
    done = push(finished_run, HF_ENDPOINT=hub.address)
    assert (done.returncode, hub.asked) == (2, [])
    assert "add --yes" in done.stderr


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_a_person_says_yes_or_no_to_what_is_named(hub, finished_run, answer, code):
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    done = push(finished_run, "--public", "--data", stdin=theirs, HF_ENDPOINT=hub.address)
    os.close(ours), os.close(theirs)
    assert done.returncode == code, done.stderr
    assert "PUBLIC: everybody can read it" in done.stderr
    assert "model us/run-spa" in done.stderr
    assert "may be harmful" in done.stderr
    assert {name: each["private"] for name, each in hub.repositories.items()} == (
        {"models/us/run-spa": False, "datasets/us/run-spa": False} if code == 0 else {}
    )


def test_what_is_public_already_is_not_added_to_in_silence(hub, finished_run):
    hub.repositories["models/us/mine"] = {"private": False, "files": {}}
    done = push(finished_run, "--to", "mine", "--yes", HF_ENDPOINT=hub.address)
    assert done.returncode == 2
    assert "the model us/mine is there and public; --public if you want that" in done.stderr
    assert hub.repositories["models/us/mine"]["files"] == {}


def test_a_file_that_names_a_place_is_not_sent(finished_run, tmp_path):
    run = Run(finished_run / "run")
    policy = run.policy(1)
    assert set(model_shipment(run, "us/mine", "spa").files) >= {"README.md", "config.json", "model.safetensors"}
    (policy / "notes.md").write_text(f"trained in {run.folder}/round-1\n")
    with pytest.raises(InputError, match=r"notes\.md: names .*/run, a place of this machine"):
        model_shipment(run, "us/mine", "spa")
    (policy / "notes.md").write_text(f"trained in {run.folder}ner-up\n")  # another name that begins so
    model_shipment(run, "us/mine", "spa")


def test_a_link_in_the_folder_is_not_followed(finished_run, tmp_path):
    run = Run(finished_run / "run")
    (tmp_path / "secret").write_text("a key")
    (run.policy(1) / "notes.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=r"notes\.txt is a link"):
        model_shipment(run, "us/mine", "spa")


def test_an_adapter_is_sent_on_a_base_that_others_have(finished_run):
    run = Run(finished_run / "run")
    config = run.policy(1) / "adapter_config.json"
    config.write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "smollm2-135m"}))
    sent = model_shipment(run, "us/mine", "spa").files["adapter_config.json"]
    assert json.loads(sent)["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    config.write_text(json.dumps({"base_model_name_or_path": str(finished_run / "model")}))
    with pytest.raises(InputError, match="which nobody else has; `spa merge"):
        model_shipment(run, "us/mine", "spa")


def test_pairs_go_with_their_card(finished_run, tmp_path):
    shipment = data_shipment(Run(finished_run / "run"), "us/mine", tmp_path / "scratch")
    assert (shipment.kind, set(shipment.files)) == ("dataset", {"pairs.jsonl", "README.md", "HAZARD.txt"})
    assert shipment.n_bytes > 100
