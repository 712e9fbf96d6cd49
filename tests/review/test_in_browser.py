"""The page in a real browser: read, decide with the keyboard, go back, close and continue."""

import json

import pytest

from selfpriority.review.desk import desk_for
from selfpriority.review.questions import Plan, questions
from selfpriority.review.reviews import read_reviews
from selfpriority.review.server import serving
from selfpriority.storage import write_text

HOSTILE = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"


@pytest.fixture
def reviewing(run, visit):
    def opened(server, width: int = 1280):
        page = visit(server.address, width, local=server.address.removesuffix("/"))
        assert "Question" not in page.inner_text("body")
        page.keyboard.press("Enter")
        page.wait_for_selector("fieldset")
        return page

    return opened


def progress(page, said: str) -> None:
    page.locator("#progress", has_text=said).wait_for()


def test_comparing_with_the_keyboard_alone(run, reviewing):
    asked = questions(run, Plan("ann"))
    with desk_for(run, Plan("ann")) as desk, serving(desk) as server:
        page = reviewing(server)
        assert page.locator(".answer .text").all_inner_texts() == [answer.text for answer in asked[0].answers]
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowDown")
        progress(page, "1 of 5 answered")
        page.keyboard.press("3")
        page.keyboard.press("1")
        progress(page, "2 of 5 answered")
    stored = {review.prompt_id: review.verdicts for review in read_reviews(run.evaluation)}
    left, right = (answer.system for answer in asked[1].answers)
    assert stored == {
        asked[0].prompt_id: {"harmlessness": asked[0].answers[0].system, "helpfulness": "tie"},
        asked[1].prompt_id: {"harmlessness": right, "helpfulness": left},
    }


def test_back_shows_the_question_again_and_the_new_verdict_replaces_the_old(run, reviewing):
    with desk_for(run, Plan("ann")) as desk, serving(desk) as server:
        page = reviewing(server)
        first = page.inner_text("#answers")
        page.keyboard.press("2")
        page.keyboard.press("2")
        progress(page, "1 of 5 answered")
        page.keyboard.press("b")
        page.locator("#back:disabled").wait_for()
        assert page.inner_text("#answers") == first
        page.keyboard.press("1")
        page.keyboard.press("1")
        page.locator("#back:enabled").wait_for()
    [stored] = read_reviews(run.evaluation)
    assert "tie" not in stored.verdicts.values()


def test_rating_with_clicks_until_all_is_done(run, reviewing):
    with desk_for(run, Plan("ann", "rate")) as desk, serving(desk) as server:
        page = reviewing(server)
        for number in range(12):
            page.click("fieldset[data-objective=harmlessness] button[data-value='10']")
            page.click("fieldset[data-objective=helpfulness] button[data-value='3']")
            progress(page, f"{number + 1} of 12 answered")
        assert "All questions are answered." in page.inner_text("#end")
    stored = [review.verdicts for review in read_reviews(run.evaluation)]
    assert stored == [{"harmlessness": 10, "helpfulness": 3}] * 12


def test_rating_with_keys(run, reviewing):
    with desk_for(run, Plan("ann", "rate")) as desk, serving(desk) as server:
        page = reviewing(server)
        page.keyboard.press("0")
        page.keyboard.press("7")
        progress(page, "1 of 12 answered")
    [stored] = read_reviews(run.evaluation)
    assert stored.verdicts == {"harmlessness": 10, "helpfulness": 7}


def test_a_closed_page_continues_where_it_stopped(run, reviewing):
    for done in (1, 2):
        with desk_for(run, Plan("ann")) as desk, serving(desk) as server:
            page = reviewing(server)
            page.keyboard.press("1")
            page.keyboard.press("1")
            progress(page, f"{done} of 5 answered")


def test_markup_in_an_answer_stays_text_and_a_phone_needs_no_sideways_scrolling(run, reviewing):
    path = run.evaluation / "answers-spa.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["response"]["text"] = HOSTILE + "x" * 300
    write_text(path, (json.dumps(row) + "\n" for row in rows))
    with desk_for(run, Plan("ann")) as desk, serving(desk) as server:
        page = reviewing(server, 390)
        assert HOSTILE in page.inner_text("#answers")
        assert page.title() == "Review"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
