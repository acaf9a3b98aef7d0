"""Who may ask: bearer tokens, names of the host, and pages of other sites."""

from pathlib import Path

import pytest
from fastapi import FastAPI

from engine import Captioner, ClosedError, OptionsError, Scheduler
from serving.http.app import create_app
from serving.http.hosts import names_for
from serving.http.page_files import PAGE
from serving.http.tokens import read_tokens
from tests.serving.calls import ask, parsed, problem
from tests.serving.stand_in import StandIn

JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture
def guarded(scheduler: Scheduler) -> FastAPI:
    """A service with two tokens."""
    return create_app(scheduler, tokens=[b"first", b"second"], warm=False)


WRONG = (None, "Bearer third", "Bearer ", "Bearer firstsecond", "Basic first", "first", "é", "Bearer first\xa0")


@pytest.mark.parametrize("given", WRONG)
def test_without_a_right_token_nothing_is_told(guarded: FastAPI, given: str | None) -> None:
    headers = {"Authorization": given.encode("latin-1")} if given else {}
    for path in ("/v1/model", "/metrics", "/v1/captions", "/nothing"):
        answer = ask(guarded, "POST" if path == "/v1/captions" else "GET", path, headers=headers)
        problem(answer, 401, "token")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("given", ["Bearer first", "bearer second", "Bearer  first "])
def test_any_of_the_tokens_opens(guarded: FastAPI, given: str) -> None:
    assert ask(guarded, "GET", "/v1/model", headers={"Authorization": given}).status_code == 200


def test_probes_and_the_page_need_no_token(guarded: FastAPI) -> None:
    for path in (*PAGE, "/healthz", "/openapi.json"):
        assert ask(guarded, "GET", path).status_code == 200


def test_mounted_in_another_application_the_service_is_itself(scheduler: Scheduler, photos: list[bytes]) -> None:
    other = FastAPI()
    other.mount("/cap", create_app(scheduler, tokens=[b"first"], warm=False))
    for path in ("/", "/page.js", "/healthz", "/readyz", "/openapi.json"):
        assert ask(other, "GET", f"/cap{path}").status_code == 200
    for path in ("/v1/model", "/metrics", "/cap/healthz", "//healthz"):
        problem(ask(other, "GET", f"/cap{path}"), 401, "token")
    headers = JPEG | {"Authorization": "Bearer first"}
    assert ask(other, "POST", "/cap/v1/captions", content=photos[0], headers=headers).status_code == 200
    requests = parsed(ask(other, "GET", "/cap/metrics", headers=headers).text)["http_requests_total"]
    assert requests['method="POST",path="/v1/captions",status="200"'] == 1


def test_a_redirect_sends_nobody_to_the_host_that_a_header_names(app: FastAPI) -> None:
    for path in ("/v1/model/", "/healthz/", "/v1/captions/"):
        answer = ask(app, "GET", path, headers={"Host": "elsewhere.example"})
        problem(answer, 404, "about:blank")
        assert "location" not in answer.headers


ASKED = [  # headers, and whether the page of the service may have sent them
    ({}, True),
    ({"Origin": "http://test"}, True),
    ({"Origin": "http://TEST:80"}, True),
    ({"Origin": "https://captions.example", "Host": "captions.example"}, True),
    ({"Origin": "https://captions.example", "Host": "captions.example:443"}, True),
    ({"Origin": "http://captions.example:8000", "Host": "captions.example:8000"}, True),
    ({"Origin": "https://captions.example", "Sec-Fetch-Site": "same-origin"}, True),  # by a proxy that changes Host
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": ""}, False),
    ({"Origin": "http://test", "Sec-Fetch-Site": "cross-site"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": ""}, False),
    ({"Origin": "http://evil.example"}, False),
    ({"Origin": "http://test:8000"}, False),
    ({"Origin": "http://localhost:9"}, False),
    ({"Origin": "http://["}, False),
]


@pytest.mark.parametrize(("headers", "may"), ASKED)
def test_only_the_services_own_page_may_ask(captioner: Captioner, headers: dict[str, str], may: bool) -> None:
    app = create_app(StandIn(captioner, room=0, refusal=ClosedError("asked")), warm=False)
    for path in ("/v1/captions", "/v1/captions/stream"):
        answer = ask(app, "POST", path, content=b"x", headers=JPEG | headers)
        problem(answer, *((503, "closing") if may else (403, "cross-site")))
    assert ask(app, "GET", "/", headers=headers).status_code == 200  # a link to the page


@pytest.mark.parametrize("host", ["captions.example", "127.0.0.1:8000", "localhost:8000", "LOCALHOST.", "[::1]:8000"])
def test_a_service_with_names_answers_to_them_and_to_its_addresses(scheduler: Scheduler, host: str) -> None:
    app = create_app(scheduler, hosts=["Captions.Example."], warm=False)
    assert ask(app, "GET", "/v1/model", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "captions.example.x", "["]
)
def test_a_name_that_leads_here_for_a_while_opens_nothing(scheduler: Scheduler, host: str) -> None:
    app = create_app(scheduler, hosts=["captions.example"], warm=False)
    for path in ("/", "/v1/model", "/metrics", "/openapi.json"):
        told = problem(ask(app, "GET", path, headers={"Host": host, "Sec-Fetch-Site": "same-origin"}), 421, "host")
        assert "--allowed-host" in told["detail"]
    for any_name in (None, ["*"]):
        app = create_app(scheduler, hosts=any_name, warm=False)
        assert ask(app, "GET", "/v1/model", headers={"Host": host}).status_code == 200


def test_pages_of_an_allowed_host_may_ask_through_a_proxy_that_changes_the_host(captioner: Captioner) -> None:
    stand_in = StandIn(captioner, room=0, refusal=ClosedError("asked"))
    app = create_app(stand_in, hosts=["captions.example"], warm=False)
    headers = JPEG | {"Host": "127.0.0.1:8000", "Origin": "https://captions.example:8443"}
    problem(ask(app, "POST", "/v1/captions", content=b"x", headers=headers), 503, "closing")


@pytest.mark.parametrize(
    ("address", "allowed", "expected"),
    [
        ("127.0.0.1", [], []),
        ("::1", [], []),
        ("fe80::1%eth0", [], None),
        ("0.0.0.0", [], None),
        ("0.0.0.0", ["a"], ["a"]),
    ],
)
def test_a_service_that_only_this_machine_reaches_has_only_its_names(
    address: str, allowed: list[str], expected: list[str] | None
) -> None:
    assert names_for(address, allowed) == expected


def test_tokens_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAPTIONING_TOKEN", raising=False)
    assert read_tokens() == []
    file = tmp_path / "tokens"
    file.write_text("one\n\n two \n")
    assert read_tokens(str(file)) == [b"one", b"two"]
    monkeypatch.setenv("CAPTIONING_TOKEN", "three")
    assert read_tokens() == [b"three"]
    file.write_text("\n")
    with pytest.raises(ValueError, match="holds no token"):
        read_tokens(str(file))
    with pytest.raises(ValueError, match="cannot be read"):
        read_tokens(str(tmp_path / "none"))


@pytest.mark.parametrize("token", ["two words", "voilà", "a\x0b", "\x0ca", "\ufeffa", "a\u00a0", "a\0"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_told(
    tmp_path: Path, scheduler: Scheduler, token: str
) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"good\n{token}\n")
    with pytest.raises(OptionsError, match=r"token 2 of the file .* cannot be sent") as told:
        read_tokens(str(file))
    assert token not in str(told.value).replace(str(file), "")
    with pytest.raises(OptionsError):
        create_app(scheduler, tokens=[token.encode()], warm=False)
    with pytest.raises(OptionsError):
        create_app(scheduler, tokens=[b""], warm=False)  # which `Bearer ` would match
