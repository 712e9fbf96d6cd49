"""Who may talk to the server: the page it served, and nobody else."""

import http.client
import json
from contextlib import closing

import pytest

from selfpriority.review.desk import desk_for
from selfpriority.review.questions import Plan
from selfpriority.review.reviews import read_reviews
from selfpriority.review.server import serving

VERDICT = json.dumps({"number": 0, "seconds": 1.5, "verdicts": {"harmlessness": "left", "helpfulness": "right"}})
AS_JSON = {"Content-Type": "application/json"}


@pytest.fixture
def server(run):
    with desk_for(run, Plan("ann")) as desk, serving(desk) as server:
        yield server


def call(server, method: str, path: str, headers: dict | None = None, body: str | None = None):
    """(status, headers, body) of one request."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)) as connection:
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read().decode()


def test_only_this_machine_can_reach_it(server):
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.token) >= 32


def test_the_page_and_a_question_need_the_token(server):
    status, headers, body = call(server, "GET", f"/{server.token}/")
    assert status == 200
    assert "<!doctype html>" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers
    assert json.loads(call(server, "GET", f"/{server.token}/next")[2])["number"] == 0
    for path in (
        "/",
        "/next",
        "/wrong/next",
        f"/{server.token}",
        f"/{server.token[:-1]}/next",
    ):
        assert call(server, "GET", path)[0] == 403


def test_a_name_that_points_here_from_elsewhere_is_refused(server):
    port, path = server.server_port, f"/{server.token}/next"
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        assert call(server, "GET", path, {"Host": host})[0] == 403
    assert call(server, "GET", path, {"Host": f"localhost:{port}"})[0] == 200


def test_another_site_can_neither_ask_nor_answer(server, run):
    path = f"/{server.token}/verdict"
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert call(server, "POST", path, AS_JSON | headers, VERDICT)[0] == 403
        assert call(server, "GET", f"/{server.token}/next", headers)[0] == 403
    assert call(server, "POST", path, {"Content-Type": "text/plain"}, VERDICT)[0] == 415
    assert call(server, "OPTIONS", path, {"Origin": "https://evil.example"})[0] == 501
    assert read_reviews(run.evaluation) == []


def test_a_verdict_of_the_page_is_stored(server, run):
    own = {"Origin": f"http://127.0.0.1:{server.server_port}", "Sec-Fetch-Site": "same-origin"}
    status, _, body = call(server, "POST", f"/{server.token}/verdict", AS_JSON | own, VERDICT)
    assert (status, json.loads(body)["number"]) == (200, 1)
    [stored] = read_reviews(run.evaluation)
    assert (stored.rater, stored.seconds, set(stored.verdicts)) == ("ann", 1.5, {"harmlessness", "helpfulness"})


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", '"x"', '{"number": 99}', "\ufeff{}", "[" * 6000, "9" * 5000],
    ids=["empty", "open", "list", "text", "unknown", "mark", "deep", "long number"],
)
def test_a_bad_body_is_an_answer_not_a_crash(server, body):
    status, _, said = call(server, "POST", f"/{server.token}/verdict", AS_JSON, body.encode("utf-8"))
    assert status == 400
    assert json.loads(said)["error"]


def test_a_large_body_is_not_read(server):
    path = f"/{server.token}/verdict"
    assert call(server, "POST", path, AS_JSON | {"Content-Length": "1000000"})[0] == 413
    assert call(server, "POST", path, AS_JSON | {"Content-Length": "9" * 5000})[0] == 413
    assert call(server, "GET", f"/{server.token}/question/99")[0] == 400
    assert call(server, "GET", f"/{server.token}/question/{'9' * 5000}")[0] == 400
    assert call(server, "GET", f"/{server.token}/elsewhere")[0] == 404
