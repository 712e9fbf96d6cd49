"""Personas and openings follow the language of the prompts; English prompts get what they always got."""

from __future__ import annotations

import json

import pytest

from selfpriority.errors import InputError
from selfpriority.languages import READ, language_of
from selfpriority.method.sample import sample
from selfpriority.personas import Persona, load_personas, personas_for, without_personas
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.round_inputs import used_personas
from selfpriority.phases.round_steps import SAMPLE, Round
from selfpriority.prompts import load_prompts
from selfpriority.recipe import Prompts, Recipe, Sample
from selfpriority.records import Message, Prompt
from selfpriority.run import Run, key_of
from tests.method.test_ask_steps import Model, echo

PROMPTS = {
    "en": "How do I get rid of the wasp nest that is under the roof of my house?",
    "de": "Wie werde ich das Wespennest los, das unter dem Dach ist, und was kostet es?",
    "es": "¿Cómo puedo quitar el nido de avispas que está en el techo de mi casa?",
    "fr": "Comment est-ce que je peux enlever le nid de guêpes qui est sous le toit ?",
    "zh": "我家屋檐下有一个马蜂窝 我应该怎么把它弄走",
}
AS_EVER = {"default": ("a8225a5e87ef9284", "3d6e90d38537fd03"), "openings": ("41c5f0411c7468d8", "61557a0a8da2df55")}
"""Shipped name -> key of the requests to English prompts, and of the personas, before they had a language."""


def of_language(name: str, language: str) -> list[Persona]:
    return [each for each in load_personas(name) if each.language == language]


@pytest.mark.parametrize("name", ["default", "openings"])
def test_what_ships_covers_every_language_that_is_read(name):
    ours = of_language(name, "")
    for language in set(READ) - {"en"}:
        theirs = of_language(name, language)
        assert [each.name for each in theirs] == [each.name for each in ours]
        for one, other in zip(ours, theirs, strict=True):
            assert bool(one.text) == bool(other.text)
            assert bool(one.opening) == bool(other.opening)
        told = {language_of(" ".join(each.text or each.opening for each in theirs))}
        assert told == {language}


@pytest.mark.parametrize("name", ["default", "openings"])
def test_every_prompt_gets_those_of_its_language(name):
    personas = load_personas(name)
    heard = personas_for(list(PROMPTS.values()), personas)
    assert heard == [of_language(name, "" if language == "en" else language) for language in PROMPTS]


def test_a_prompt_too_short_to_tell_is_taken_for_the_language_of_the_others():
    personas = load_personas("default")
    short = "Brot?"
    assert not language_of(short)
    assert personas_for([PROMPTS["de"], short], personas)[1] == of_language("default", "de")
    assert personas_for([PROMPTS["en"], short], personas)[1] == of_language("default", "")
    assert personas_for([short], personas)[0] == of_language("default", "")


def english(n: int) -> list[Prompt]:
    texts = (f"What is the best way to repair the chair number {k} that you can see in the hall?" for k in range(n))
    return [Prompt(f"q{k}", (Message("user", text),)) for k, text in enumerate(texts)]


@pytest.mark.parametrize("name", ["default", "openings"])
def test_english_prompts_get_exactly_what_they_got_and_keep_their_keys(name, tmp_path):
    model = Model(echo)
    sample(english(30), model, Sample(n=6), load_personas(name), 3)
    asked = [
        {"messages": [(m.role, m.content) for m in r.messages], "n": r.n, "seed": r.seed, "opening": r.opening}
        for r in model.asked
    ]
    assert key_of(asked)[:16] == AS_EVER[name][0]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": each.text}) + "\n" for each in english(30)))
    recipe = Recipe.model_validate(
        {"model": "smollm2-135m", "prompts": str(tmp_path / "p.jsonl"), "sample": {"personas": name}}
    )
    run = Run(tmp_path / "run")
    parts = SAMPLE.key_parts(Round(run, Resources(recipe, run, Reporter()), 1))
    assert key_of(parts[3])[:16] == AS_EVER[name][1]


@pytest.mark.parametrize("name", ["default", "openings"])
def test_the_prompts_that_ship_get_what_they_got(name):
    texts = [prompt.text for prompt in load_prompts(Prompts(source="demo"), 0).kept]
    ours = of_language(name, "")
    assert all(heard == ours for heard in personas_for(texts, load_personas(name)))


def test_a_key_holds_those_that_are_used_and_no_others(tmp_path):
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": PROMPTS[each]}) + "\n" for each in ("de", "fr")))
    recipe = Recipe.model_validate({"model": "m/m", "prompts": str(tmp_path / "p.jsonl")})
    prompts = load_prompts(recipe.prompts, 0).kept
    assert used_personas(recipe, prompts) == of_language("default", "de") + of_language("default", "fr")
    assert used_personas(recipe, prompts[:1]) == of_language("default", "de")


def test_rows_of_ones_own_may_name_a_language(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("- {name: a, text: Be brief.}\n- {name: a, text: Sé breve., language: es}\n")
    personas = load_personas(str(path))
    assert [each.text for own in personas_for([PROMPTS["es"], PROMPTS["fr"]], personas) for each in own] == [
        "Sé breve.",
        "Be brief.",
    ]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("- {name: a, text: b, language: xx}\n", "language 'xx' is not told apart here; allowed: en, de, es"),
        ("- {name: a, text: b, language: de}\n", "every persona has a language; leave it out of those for all other"),
        ("- {name: a, language: de}\n", "needs a name and a text or an opening"),
        ("- {name: a, text: b, langage: de}\n", "has a field 'langage'; did you mean language?"),
    ],
)
def test_what_is_wrong_with_a_row_is_told(tmp_path, rows, told):
    path = tmp_path / "mine.yaml"
    path.write_text(rows)
    with pytest.raises(InputError, match=told):
        load_personas(str(path))


def test_languages_without_personas_are_told():
    italian = "Come posso togliere il nido di vespe che è sotto il tetto della mia casa?"
    texts = [PROMPTS["en"], PROMPTS["de"], italian, italian]
    assert without_personas(texts, load_personas("default")) == {"it": 0.5}
    assert without_personas([PROMPTS["en"]] * 60 + [italian], load_personas("default")) == {}
    for silent in (load_personas("none"), (Persona("a", "Be brief."),)):
        assert without_personas(texts, silent) == {}
