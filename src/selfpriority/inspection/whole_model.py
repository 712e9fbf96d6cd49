"""What a run trained as one model that any engine loads: an adapter merged into its base, with the policy's card.

Trains nothing and changes nothing of the run. Reads the run directory and the base model.
"""

from __future__ import annotations

from pathlib import Path

from selfpriority.errors import InputError
from selfpriority.inspection.run_files import recipe_of
from selfpriority.models.trust import trust_code
from selfpriority.phases.align import check_trained
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.plain_text import shown
from selfpriority.recipe import TRAINED
from selfpriority.report.cards import CARD, policy_card
from selfpriority.run import MERGED, SYSTEMS, Run
from selfpriority.storage import write_text


def write_whole_model(run: Run, to: Path, system: str = TRAINED) -> Path:
    """Writes the policy of a run's last round as a whole model.

    Args:
        run: that is trained.
        to: a folder that there is not yet.
        system: `spa`, or a system that the run trained beside it.

    Returns:
        the folder: weights in the type that the recipe's training saves, tokenizer, chat template and card.

    Raises:
        InputError: no such system, or `to` is taken.
        WorkFailed: it is not trained under the present recipe, or the disk is full.
    """
    from selfpriority.training.merge import save_merged  # loads torch

    theirs = run_of(run, system)
    recipe = recipe_of(theirs)
    if to.exists():
        raise InputError(f"--to: {to} exists already; name a folder that does not")
    trust_code(recipe.trust_remote_code)
    check_trained(theirs, Resources(recipe, theirs, Reporter()))
    save_merged(recipe.model, {str(theirs.policy(recipe.rounds)): 1.0}, recipe.align, to)
    write_text(to / CARD, [policy_card(theirs, recipe.rounds, is_whole=True)])
    return to


def run_of(run: Run, system: str) -> Run:
    """The run, or that of a system which it trains beside it.

    Raises:
        InputError: it trains no such system.
    """
    if system == TRAINED:
        return run
    beside = sorted(path.parent.name for path in run.folder.glob(f"{SYSTEMS}/*/resolved.yaml"))
    if system not in beside:
        whole = run.folder / MERGED / system
        if whole.is_dir():
            raise InputError(f"--system: {shown(system)} is a whole model already: {whole}")
        raise InputError(
            f"--system: {shown(system)} is not trained by this run; it trains {', '.join([TRAINED, *beside])}"
        )
    return Run(run.folder / SYSTEMS / system)
