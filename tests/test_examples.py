"""The examples run as they stand, without torch, and print what they claim; those for a cluster start what they say.

`tests/test_nodes.py` runs the command of the one for Slurm.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from selfpriority.cli.entry import app

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(name: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    environment = {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_own_objectives():
    assert run("own_objectives.py") == [
        "score: 2 prompts kept; dropped: empty (q2/4)",
        "denoise: 2 prompts kept; dropped: nothing",
        "pair: 2 prompts kept; dropped: nothing",
        "16 pairs; honest decided 10, kind decided 5, brief decided 1",
    ]


def test_pairs_for_trl(tmp_path):
    lines = run("pairs_for_trl.py", str(tmp_path / "to"))
    each = ", ".join(
        f"score_{role}_{name}" for role in ("chosen", "rejected") for name in ("harmlessness", "helpfulness")
    )
    columns = f"prompt, chosen, rejected, score_chosen, score_rejected, {each}, gap, weight, decided_by, prompt_id"
    columns += ", stop_chosen, stop_rejected"
    assert lines[0] == f"5 pairs with {columns}"
    assert [line.split()[0] for line in lines[1:]] == ["harmlessness"] * 2 + ["helpfulness"] * 3
    rows = [json.loads(line) for line in (tmp_path / "to" / "pairs.jsonl").read_text("utf-8").splitlines()]
    # 9.0 and 9.2 are equally harmless on the grid, so helpfulness decides for the helpful answer
    assert (rows[2]["score_chosen"], rows[2]["score_rejected"]) == (17.5, 11.2)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_do_without_torch(path):
    code = f"import runpy, sys; runpy.run_path({str(path)!r}, run_name='__main__')\nassert 'torch' not in sys.modules"
    environment = {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def started(words: Sequence[str]) -> Namespace:
    """What torchrun understands, once the command it starts has been understood by `spa`."""
    from torch.distributed.run import get_args_parser

    found = get_args_parser().parse_args(list(words))
    assert (found.module, found.training_script, found.rdzv_backend) == (True, "selfpriority", "c10d")
    verb, target = found.training_script_args
    command = get_command(app).commands[verb]
    assert command.make_context(verb, [target]).params["target"] == Path(target)
    return found


def test_the_job_of_slurm_is_a_script_that_starts_torchrun_on_every_node() -> None:
    path = ROOT / "examples" / "two-nodes.sbatch"
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text("utf-8").replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.startswith("srun ")]
    words = [word.replace("$SLURM_NNODES", "2").replace("$SLURM_GPUS_ON_NODE", "8") for word in shlex.split(line)]
    assert words[:2] == ["srun", "torchrun"]
    found = started(words[2:])
    assert (found.nnodes, found.nproc_per_node) == ("2", "8")
    given = [line.split()[1] for line in text.splitlines() if line.startswith("#SBATCH --")]
    options = dict(option.split("=") for option in given if "=" in option)
    assert (options["--nodes"], options["--gpus-per-node"], options["--ntasks-per-node"]) == ("2", "8", "1")
    assert int(options["--cpus-per-task"]) // int(options["--gpus-per-node"]) == 8


def test_the_job_of_kubernetes_has_as_many_pods_and_gpus_as_it_starts_processes() -> None:
    service, job = yaml.safe_load_all((ROOT / "examples" / "two-nodes.yaml").read_text("utf-8"))
    assert (service["kind"], job["kind"], job["apiVersion"]) == ("Service", "Job", "batch/v1")
    name, spec = job["metadata"]["name"], job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["command"] == ["torchrun"]
    found = started(container["args"])
    assert spec["completionMode"] == "Indexed"
    assert int(found.nnodes) == spec["completions"] == spec["parallelism"]
    assert int(found.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert service["metadata"]["name"] == spec["template"]["spec"]["subdomain"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert found.rdzv_endpoint == f"{name}-0.{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    volumes = {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    seconds = {variable["name"]: variable["value"] for variable in container["env"]}["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]
    assert int(seconds) < spec["template"]["spec"]["terminationGracePeriodSeconds"]
