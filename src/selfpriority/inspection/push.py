"""What a run made, sent to the hub: the trained policy with its card, and the pairs it learned from with theirs.

Nothing is sent but by `send`; all that can be wrong here is found before. Knows no question and no terminal.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from selfpriority.errors import InputError, WorkFailed
from selfpriority.inspection.export import Wanted, export
from selfpriority.inspection.run_files import recipe_of
from selfpriority.inspection.whole_model import run_of
from selfpriority.models.files import ADAPTER_CONFIG, adapter_base
from selfpriority.models.public import hub_id
from selfpriority.phases.align import check_trained
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.plain_text import shown
from selfpriority.prompts import hub_is_there
from selfpriority.report.cards import write_policy_cards
from selfpriority.run import Run
from selfpriority.table_rows import first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_VOCABULARY = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
"""Hold tokens, which may look like the beginning of a path, and name no place."""
_TEXT = (".json", ".md", ".txt", ".jinja", ".yaml", ".yml", ".py")
"""Files that are searched for places. Rows of data are not: what people ask about names places of its own."""


@dataclass(frozen=True)
class Shipment:
    """What goes into one repository of the hub."""

    kind: Literal["model", "dataset"]
    to: str
    """The repository, `OWNER/NAME`."""
    files: Mapping[str, Path | bytes]
    """Name in the repository -> the file, or what it holds."""

    @property
    def n_bytes(self) -> int:
        """Of all files together."""
        return sum(len(each) if isinstance(each, bytes) else each.stat().st_size for each in self.files.values())


class Hub:
    """The hub as the owner of this machine's token sees it.

    Raises:
        InputError: offline, without a token, or with one that the hub does not take.
    """

    def __init__(self) -> None:
        from huggingface_hub import HfApi, constants, get_token

        self.address = constants.ENDPOINT
        if constants.HF_HUB_OFFLINE:
            raise InputError("push: HF_HUB_OFFLINE is set, so nothing can be sent; unset it")
        if get_token() is None:
            raise InputError("push: no token of the hub here; `hf auth login` keeps one, or HF_TOKEN holds it")
        if not hub_is_there():
            raise InputError(f"push: {self.address} does not answer; nothing was sent")
        self._api: HfApi = HfApi()
        with _told("the token"):
            self._owner = str(self._api.whoami()["name"])

    def named(self, to: str) -> str:
        """The whole name of a repository, the token's owner before a bare one.

        Raises:
            InputError: it can be no name.
        """
        if not _NAME.fullmatch(to):
            raise InputError(f"--to: {shown(to)} is no name of the hub; ORG/NAME, or NAME for one of your own")
        return to if "/" in to else f"{self._owner}/{to}"

    def check_private(self, shipment: Shipment) -> None:
        """Raises InputError where the repository is there already and everybody can read it."""
        from huggingface_hub.errors import RepositoryNotFoundError

        with _told(shipment.to):
            try:
                found = self._api.repo_info(shipment.to, repo_type=shipment.kind)
            except RepositoryNotFoundError:
                return
        if not found.private:
            raise InputError(f"--to: the {shipment.kind} {shipment.to} is there and public; --public if you want that")

    def send(self, shipment: Shipment, is_public: bool) -> str:
        """Makes the repository unless it is there, and sends all files as one commit.

        Returns:
            Where it lies.

        Raises:
            InputError: the token may not write there.
            WorkFailed: the hub fails, or cannot be reached any more.
        """
        from huggingface_hub import CommitOperationAdd

        kind, to = shipment.kind, shipment.to
        with _told(to):
            place = self._api.create_repo(to, repo_type=kind, private=not is_public, exist_ok=True)
            self._api.create_commit(
                to,
                [CommitOperationAdd(name, each) for name, each in shipment.files.items()],
                commit_message="From a run of selfpriority",
                repo_type=kind,
            )
        return str(place)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """What the hub's client fails at, in one line."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404):
            raise InputError(f"push: the hub does not take {what} ({status}): may this token write there?") from None
        raise WorkFailed(f"push: {what}: {first_line(error)}; the same command sends it again") from None
    except Exception as error:  # of one client or another
        if not {kind.__name__ for kind in type(error).__mro__} & {"TransportError", "OSError"}:
            raise
        raise WorkFailed(f"push: {what}: {first_line(error)}; the same command sends it again") from None


def model_shipment(run: Run, to: str, system: str) -> Shipment:
    """The policy of the last round.

    Args:
        run: that is trained.
        to: the repository.
        system: `spa`, or a system that the run trained beside it.

    Raises:
        InputError: no such system, an adapter whose base nobody else has, or a file that names a place of this machine.
        WorkFailed: it is not trained under the present recipe.
    """
    theirs = run_of(run, system)
    recipe = recipe_of(theirs)
    check_trained(theirs, Resources(recipe, theirs, Reporter()))
    folder = theirs.policy(recipe.rounds)
    if folder.is_symlink():
        raise InputError(f"push: {folder} is the model that training began with: nothing was trained")
    write_policy_cards(run)
    files: dict[str, Path | bytes] = {path.name: path for path in _visible(folder)}
    base = adapter_base(folder)
    if base is not None:
        files[ADAPTER_CONFIG] = _on_hub(folder / ADAPTER_CONFIG, base, run)
    _check_places(files, [*_places(run), recipe.model])
    return Shipment("model", to, files)


def data_shipment(run: Run, to: str, scratch: Path) -> Shipment:
    """The preference pairs of all rounds, as TRL and `datasets` read them, with card and hazard notice.

    Args:
        run: with pairs.
        to: the repository.
        scratch: an empty folder, which the files lie in until they are sent.

    Raises:
        InputError: there are no pairs, none without a cut answer, or a card names a place of this machine.
    """
    export(run, scratch, Wanted())
    files: dict[str, Path | bytes] = {path.name: path for path in _visible(scratch)}
    _check_places(files, _places(run))
    return Shipment("dataset", to, files)


def _visible(folder: Path) -> list[Path]:
    """The files of a folder but hidden ones, none of them somewhere else."""
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    for path in found:
        if path.is_symlink():
            raise InputError(f"push: {path} is a link, and what it leads to may be no part of the run; take it away")
    return found


def _on_hub(config: Path, base: str, run: Run) -> bytes:
    """An adapter's configuration with its base as the hub knows it."""
    known = hub_id(base)
    if known is None:
        raise InputError(
            f"push: the policy is an adapter on {shown(base)}, which nobody else has; "
            f"`spa merge {run.folder} --to FOLDER` makes a whole model, and `hf upload ORG/NAME FOLDER` sends it"
        )
    told = json.loads(config.read_text("utf-8"))
    return (json.dumps({**told, "base_model_name_or_path": known}, indent=2) + "\n").encode()


def _places(run: Run) -> list[str]:
    return [str(run.folder.resolve()), str(Path.cwd()), str(Path.home())]


def _check_places(files: Mapping[str, Path | bytes], places: list[str]) -> None:
    """Raises InputError where a file names one of the places, or what lies in it."""
    named = [re.escape(place.rstrip("/")) for place in places if len(place) > 1 and Path(place).is_absolute()]
    pattern = re.compile(rf"(?:{'|'.join(named)})(?![\w.-])")
    for name, each in files.items():
        for line in _lines(name, each):
            if found := pattern.search(line):
                raise InputError(f"push: {name}: names {found[0]}, a place of this machine; take it out of the file")


def _lines(name: str, content: Path | bytes) -> Iterator[str]:
    """What a file says in words: its lines, or what stands before the numbers of a safetensors file."""
    if isinstance(content, bytes):
        yield content.decode()
    elif name.endswith(".safetensors"):
        with content.open("rb") as file:
            yield file.read(int.from_bytes(file.read(8), "little")).decode("utf-8", errors="replace")
    elif name.endswith(_TEXT) and name not in _VOCABULARY:
        yield from content.read_text("utf-8", errors="replace").splitlines()
