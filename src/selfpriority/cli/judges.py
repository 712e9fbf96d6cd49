"""Verbs about judges: whether one can be trained on, up to which spread, and fitting one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfpriority.cli.app import AsJson, Child, Directory, Fields, RecipeArgument, app, named_recipe, phase, reporting
from selfpriority.cli.options import CheckOptions, FitOptions, HowJudged, spread
from selfpriority.plain_text import clean

if TYPE_CHECKING:
    from selfpriority.phases.tau import TauChoice


@app.command("check-judge")
@spread
def check_judge(
    recipe: RecipeArgument,
    how: CheckOptions,
    fields: Fields = None,
    as_json: AsJson = False,
    child: Child = False,
) -> None:
    """Is this model's judgement worth training on? Exit code 0 only if usable."""
    if child:
        from selfpriority.phases.judge_check import gate

        phase(recipe, "check-judge", 0, child, lambda run, resources, _: gate(run, resources))
        return
    from selfpriority.inspection.judge_table import trust_table
    from selfpriority.inspection.own_prompts_table import own_prompts_table
    from selfpriority.judges.reports import checks_as_json
    from selfpriority.phases.judge_check import check_recipe
    from selfpriority.phases.own_prompts import check_known, check_own_prompts
    from selfpriority.storage import as_json as as_json_value

    how.check()
    if how.compare:
        _compare(named_recipe(recipe), fields or [], how, as_json)
        return
    with reporting("check-judge") as reporter:
        if how.own_prompts:
            check_known(named_recipe(recipe), fields or [])
        checks = check_recipe(named_recipe(recipe), fields or [], how.labels, reporter)
        own = (
            check_own_prompts(named_recipe(recipe), fields or [], how.own_prompts, reporter)
            if how.own_prompts
            else None
        )
    if as_json:
        told = checks_as_json(checks)
        print(json.dumps(told if own is None else {**told, "own_prompts": as_json_value(own)}, indent=1))
    else:
        print(clean("\n\n".join([trust_table(checks), *([] if own is None else [own_prompts_table(own)])])))
    if checks.train is None or not checks.train.usable:
        raise typer.Exit(3)


def _compare(recipe: Path, fields: list[str], how: CheckOptions, as_json: bool) -> None:
    from selfpriority.inspection.method_table import method_table
    from selfpriority.phases.judge_methods import compare_recipe
    from selfpriority.storage import json_text

    with reporting("check-judge") as reporter:
        found = compare_recipe(recipe, fields, how.labels, how.method or [], reporter)
    print(json_text(found) if as_json else clean(method_table(found)))
    if found.recommended is None:
        raise typer.Exit(3)


@app.command("choose-tau")
@spread
def choose_tau(
    directory: Directory,
    judge: Annotated[str, typer.Option("--judge", help="The stronger judge: a model, or a folder of fitted heads.")],
    how: HowJudged,
    number: Annotated[int, typer.Option("--round", min=1, help="Round whose candidates are rated.")] = 1,
    as_json: AsJson = False,
) -> None:
    """How far does the training judge agree with a stronger one, and which tau does that suggest?"""
    from selfpriority.phases.tau import choose_tau as work
    from selfpriority.phases.tau import other_judge, tau_text

    stronger = other_judge(judge, how.method, how.base_url, how.api_key_env)
    found: list[TauChoice] = []
    phase(directory, "choose-tau", number, False, lambda run, given, n: found.append(work(run, given, n, stronger)))
    print(json.dumps(found[0].as_json(), indent=1) if as_json else clean(tau_text(found[0].curve)))


@app.command("fit-judge")
@spread
def fit_judge(
    model: Annotated[str, typer.Option("--model", help="Model whose hidden states the heads read.")],
    to: Annotated[Path, typer.Option("--to", help="Folder for heads.safetensors and card.json.")],
    how: FitOptions,
    trust: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let code that comes with the model run; read it first.")
    ] = False,
) -> None:
    """Fit probe heads on labelled answers, or on the model's own without labels; cross-validated, with a card."""
    from selfpriority.phases.judge_check import fit, fit_without_labels
    from selfpriority.recipe import Prompts, Recipe

    with reporting("fit-judge") as reporter:
        how.check()
        recipe = Recipe(model=model, prompts=Prompts(source="none"), trust_remote_code=trust)
        if how.contrast:
            card = fit_without_labels(recipe, to, reporter)
        else:
            card = fit(how.labels or [], recipe, to, how.layer, how.c, reporter)
    print(json.dumps(card, indent=1))
