"""Every prompt of a run is in the catalogue once, with what became of it."""

from collections import Counter

from selfpriority.records import Candidates, Drop, Message, Pool, Prompt, Rating, Response, Scored
from selfpriority.report.catalogue import DropLine, PairLine, collected, held_out
from selfpriority.run import Run
from selfpriority.storage import write_rows, write_text

OBJECTIVES = ("harmlessness", "helpfulness")


def response(prompt_id: str, name: str, text: str = "An answer.") -> Response:
    return Response(f"{prompt_id}/{name}", prompt_id, text, "length" if name == "y2" else "end", 3, persona="calm")


def scored(prompt_id: str, name: str, *values: float) -> Scored:
    return Scored(response(prompt_id, name), tuple(Rating(value) for value in values))


def prompt(prompt_id: str) -> Prompt:
    return Prompt(prompt_id, (Message("system", "Be kind."), Message("user", "Why?")), "ordinary")


def write_round(run: Run) -> None:
    folder = run.round(1)
    rows = [Candidates(prompt(id_), tuple(response(id_, f"y{n}") for n in (1, 2, 3))) for id_ in ("p1", "p2")]
    write_rows(folder / "1-candidates.jsonl", rows, Candidates)
    rated = (scored("p1", "y1", 4.0, 5.0), scored("p1", "y2", 6.0, 2.0))
    pools = [Pool(prompt("p1"), rated, scored("p1", "r1", 7.0, 7.0), (scored("p1", "r2", 1.0, 1.0),))]
    write_rows(folder / "3-refined.jsonl", pools, Pool)
    drops = [
        Drop("prompts", "p0", "too_long", detail="9,000 tokens"),
        Drop("score", "p1", "low_mass", response_id="p1/y3"),
        Drop("score", "p2", "too_few_rated"),
    ]
    write_rows(folder / "drops.jsonl", drops, Drop)
    pair = '{"prompt_id": "p1", "chosen_id": "p1/r1", "rejected_id": "p1/y1", "decided_by": "harmlessness", '
    old = pair.replace("p1/y1", "p1/y9")
    rest = '"distance": 5.0, "gap": 5.0, "prompt": [], "chosen": [], "rejected": []}\n'
    write_text(folder / "5-pairs.jsonl", [pair + rest, old + rest])


def test_a_round_tells_what_became_of_every_prompt(run_folder):
    run = Run.existing(run_folder)
    write_round(run)
    entries = {entry.prompt_id: entry for entry in collected(run, 1, OBJECTIVES)}
    assert {id_: entry.outcome for id_, entry in entries.items()} == {
        "p0": "prompts: too_long",
        "p1": "kept",
        "p2": "score: too_few_rated",
    }
    first = entries["p1"]
    assert [(a.name, a.role, a.scores) for a in first.answers] == [
        ("y1", "candidate", (4.0, 5.0)),
        ("y2", "candidate", (6.0, 2.0)),
        ("y3", "candidate", ()),
        ("r1", "refined", (7.0, 7.0)),
        ("r2", "other", (1.0, 1.0)),
    ]
    assert first.answers[1].tags == ("calm", "cut")
    assert first.pairs == (PairLine(3, 0, 0, 5.0, 5.0),)
    assert first.drops == (DropLine("y3", "score: low_mass", ""),)
    assert first.text == "Why?"
    assert entries["p0"].answers == ()
    assert entries["p0"].drops == (DropLine("", "prompts: too_long", "9,000 tokens"),)


def test_a_round_without_pairs_has_decided_nothing(run_folder):
    run = Run.existing(run_folder)
    outcomes = Counter(entry.outcome for entry in collected(run, 1, OBJECTIVES))
    assert outcomes == {"not decided yet": 60}


def test_held_out_prompts_hold_all_systems_in_the_order_of_the_summary(run_folder):
    entries = held_out(run_folder / "evaluation", ["vanilla", "spa"], OBJECTIVES)
    assert len(entries) == 40
    assert [answer.name for answer in entries[0].answers] == ["vanilla", "spa"]
    assert "cut" in entries[0].answers[0].tags
    assert "refusal" in entries[0].answers[1].tags
    assert entries[7].answers[1].scores[0] is None
    assert [entry.kind for entry in entries[:2]] == ["ordinary", "harmful"]


def test_a_further_set_is_a_part_of_its_own(four_systems):
    entries = held_out(four_systems / "evaluation" / "over_refusal", ["vanilla", "spa"], OBJECTIVES, "over_refusal")
    assert {entry.part for entry in entries} == {"held-out: over_refusal"}
    assert all(entry.is_held_out for entry in entries)
    assert [answer.name for answer in entries[0].answers] == [
        "vanilla",
        "spa",
        "a_rather_long_system_name",
        "spa-round-1",
    ]
