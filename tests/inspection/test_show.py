from __future__ import annotations

from dataclasses import replace

import pytest

from selfpriority.errors import InputError
from selfpriority.inspection.funnel import funnel, funnel_text
from selfpriority.inspection.story import Consistency, DropStory, HeldOutDrop, PairStory, prompt_story
from selfpriority.inspection.story_text import prompt_text
from selfpriority.records import Message
from selfpriority.run import Run
from selfpriority.run_records import PairCounts
from selfpriority.storage import as_json, json_text, read_json, write_json


def test_funnel_counts_every_step_with_the_most_frequent_reason_first(make_run):
    run = make_run()
    path = run.round(1) / "funnel.json"
    stored = read_json(path)
    stored["steps"]["denoise"] = {
        "in": 20,
        "out": 10,
        "dropped": {"ceiling": 1, "not_better": 7, "no_spread": 2},
        "responses_dropped": {},
    }
    write_json(path, stored)
    first, second = funnel(run).rounds
    by_step = {row.step: row for row in first.steps}
    assert list(by_step) == ["prompts", "sample", "score", "refine", "denoise", "pair"]
    assert as_json(by_step["prompts"]) == {
        "step": "prompts",
        "in": 5,
        "out": 4,
        "dropped": {"duplicate": 1},
        "responses_dropped": {},
    }
    assert by_step["score"].dropped == {"too_few_rated": 1}
    assert by_step["score"].responses_dropped == {"low_mass": 2}
    assert list(by_step["denoise"].dropped) == ["not_better", "no_spread", "ceiling"]
    assert first.pairs == PairCounts(19, {"harmlessness": 18, "helpfulness": 1})
    assert as_json(first)["pairs"] == {"n": 19, "decided_by": {"harmlessness": 18, "helpfulness": 1}}
    assert (first.next, second.next, second.steps) == ("align", "sample", ())


def test_funnel_text_aligns_its_columns(make_run):
    lines = funnel_text(funnel(make_run())).split("\n")
    assert lines == [
        "round 1 of 2",
        "  step     in  out  dropped  why",
        "  prompts   5    4        1  1 duplicate",
        "  sample    4    4        0  single answers lost: 2 (2 empty)",
        "  score     4    3        1  1 too_few_rated; single answers lost: 2 (2 low_mass)",
        "  refine    3    3        0",
        "  denoise   3    2        1  1 not_better",
        "  pair      2    2        0",
        "  pairs: 19; decided by harmlessness 18 (95%), helpfulness 1 (5%)",
        "  next: align",
        "",
        "round 2 of 2",
        "  nothing done yet",
    ]


def test_funnel_of_a_trained_round_tells_how_many_pairs_weigh_nothing(make_run):
    run = make_run()
    path = run.round(1) / "funnel.json"
    stored = read_json(path)
    stored["pairs"] |= {"trained": 18, "light_share": 0.25}
    write_json(path, stored)
    lines = funnel_text(funnel(run)).split("\n")
    assert "  trained on 18 pairs; 25% of them weigh under 0.1" in lines
    assert not any("survived" in line or "lose on" in line for line in lines)  # version 0.1.0 did not measure it
    stored["pairs"] |= {"survived": 0.9966, "contested": 0.426, "contested_weight": 0.227}
    write_json(path, stored)
    lines = funnel_text(funnel(run)).split("\n")
    assert "  movement that survived saving: 0.997" in lines
    assert "  43% of them lose on another objective than the one that decided; they hold 23% of the weight" in lines


def test_story_of_a_kept_prompt(make_run):
    story = prompt_story(make_run(), "p1", reveal=False)
    (entry,) = story.rounds
    assert entry.round == 1
    assert entry.outcome == "kept, 10 pairs"
    assert entry.prompt == (Message("user", "[8 words, folded; --reveal shows them]"),)
    assert [a.id for a in entry.candidates] == ["p1/y1", "p1/y2", "p1/y3", "p1/y4"]
    assert as_json(entry.candidates[3]) == {
        "id": "p1/y4",
        "persona": "careful",
        "stop": "length",
        "n_tokens": 24,
        "scores": {"harmlessness": 7.0, "helpfulness": 3.0},
        "lost": None,
        "text": "[20 words, folded; --reveal shows them]",
    }
    assert entry.refined.scores == {"harmlessness": 8.0, "helpfulness": 7.0}
    assert entry.tests.consistency["harmlessness"] == Consistency(refined=8.0, best=7.0, beaten=4, of=4)
    # harmlessness 5, 6, 5.2, 7 and helpfulness 5, 4, 6, 3: variances 0.62 and 1.25, covariance -0.8
    assert entry.tests.det == pytest.approx(0.62 * 1.25 - 0.8**2)
    assert entry.drops == (DropStory("sample", "empty", "p1/y5", ""),)
    pairs = {(p.chosen, p.rejected): p for p in entry.pairs}
    assert pairs["p1/y3", "p1/y1"].decided_by == "helpfulness"
    assert pairs["p1/refined1", "p1/y4"] == PairStory("p1/refined1", "p1/y4", "harmlessness", distance=5.0, gap=5.0)


def test_story_tells_why_a_prompt_was_dropped(make_run):
    run = make_run()
    (denoised,) = prompt_story(run, "p2", reveal=False).rounds
    assert denoised.outcome == "dropped by denoise: not_better"
    assert denoised.tests.consistency["harmlessness"].beaten == 0
    assert denoised.pairs == ()
    (unrated,) = prompt_story(run, "p3", reveal=False).rounds
    assert unrated.outcome == "dropped by score: too_few_rated"
    assert [a.lost for a in unrated.candidates] == ["score: low_mass", "score: low_mass", None, None]
    assert [a.scores for a in unrated.candidates] == [None] * 4
    (never,) = prompt_story(run, "p4", reveal=False).rounds
    assert (never.outcome, never.candidates) == ("dropped by prompts: duplicate", ())


def test_story_of_an_unfinished_run(make_run):
    (entry,) = prompt_story(make_run(until="score"), "p1", reveal=False).rounds
    assert entry.outcome == "kept so far"
    assert entry.refined is None
    assert entry.tests.consistency == {}
    assert entry.candidates[1].scores == {"harmlessness": 6.0, "helpfulness": 4.0}


def test_story_of_a_held_out_prompt(evaluated):
    story = prompt_story(evaluated, "h1", reveal=False)
    assert story.rounds == ()
    assert list(story.held_out) == ["vanilla", "spa"]
    assert story.held_out["vanilla"].ratings == {
        "harmlessness": "unrated (low_mass)",
        "helpfulness": 4.5,
    }
    assert story.held_out["spa"].refusal is True
    assert story.held_out["spa"].text == "[4 words, folded; --reveal shows them]"
    assert prompt_story(evaluated, "h2", reveal=False).held_out == {"spa": HeldOutDrop("refused_content")}
    text = prompt_text(story)
    assert "  vanilla: 5 tokens, stop: end; harmlessness unrated (low_mass); helpfulness 4.50" in text
    assert "  spa: 5 tokens, stop: end; harmlessness 8.25; helpfulness 4.50; a refusal" in text


def test_folded_story_holds_no_word_of_prompts_and_answers(evaluated):
    for prompt_id in ("p1", "p2", "p3", "h1"):
        story = prompt_story(evaluated, prompt_id, reveal=False)
        for text in (json_text(story), prompt_text(story)):
            assert not any(word in text for word in ("knife", "course", "fox", "something safe", "May I"))


def test_revealed_texts_cannot_speak_to_the_terminal(evaluated):
    story = prompt_story(evaluated, "p1", reveal=True)
    assert story.rounds[0].candidates[1].text == "Yes, ofcourse you can."
    assert story.rounds[0].prompt[0].content == "Explain how to keep a knife sharp, p1."
    assert prompt_story(evaluated, "h1", reveal=True).held_out["vanilla"].text == "Yes, ofcourse you can."


def test_revealed_text_stays_behind_its_bar(make_run):
    story = prompt_story(make_run(), "p1", reveal=True)
    (entry,) = story.rounds
    first, *others = entry.candidates
    changed = replace(entry, candidates=(replace(first, text="one\nround 2: kept"), *others))
    assert "    | one\n    | round 2: kept\n" in prompt_text(replace(story, rounds=(changed,)))


def test_prompt_text_tells_scores_drops_and_pairs(make_run):
    lines = prompt_text(prompt_story(make_run(), "p1", reveal=False)).split("\n")
    assert lines[:5] == [
        "prompt p1",
        "",
        "round 1 (ordinary): kept, 10 pairs",
        "  user",
        "    | [8 words, folded; --reveal shows them]",
    ]
    candidate = "  candidate p1/y1: 6 tokens, stop: end; persona careful; harmlessness 5.00; helpfulness 5.00"
    assert candidate in lines
    assert "  harmlessness: refined 8.00, best candidate 7.00, beats 4 of 4" in lines
    assert "  dropped by sample: answer p1/y5, empty" in lines
    assert "  p1/y3        p1/y1      1.20  1.20  helpfulness" in lines
    assert "  p1/refined1  p1/y4      5.00  5.00  harmlessness" in lines


def test_unknown_prompt_names_the_nearest(make_run, tmp_path):
    with pytest.raises(InputError, match=r"no prompt 'p11'; did you mean p1"):
        prompt_story(make_run(), "p11", reveal=False)
    with pytest.raises(InputError, match=r"no prompt 'zzzz'; it has 5, for example p1"):
        prompt_story(Run(tmp_path / "a-run"), "zzzz", reveal=False)


def test_a_run_that_has_not_begun(tmp_path, make_run):
    made = make_run(until="sample")
    run = Run(tmp_path / "fresh")
    run.folder.mkdir()
    (run.folder / "resolved.yaml").write_text(made.recipe.read_text())
    assert funnel_text(funnel(run)) == "round 1 of 2\n  nothing done yet\n\nround 2 of 2\n  nothing done yet"
    with pytest.raises(InputError, match="no prompt has been sampled yet"):
        prompt_story(run, "p1", reveal=False)
