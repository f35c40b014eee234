"""The guard in front of Locust's web UI, with the library that Locust logs in with."""

from types import SimpleNamespace
from typing import Any

import pytest
from flask import Blueprint, Flask
from flask.testing import FlaskClient
from flask_login import LoginManager

from lab.base.environ import ENV_UI_LOGIN, ENV_UI_ORIGINS
from loadtests.web.access import AccessError, guard

ELSEWHERE = "http://lab.example.org"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ENV_UI_LOGIN, ENV_UI_ORIGINS):
        monkeypatch.delenv(name, raising=False)


def make_page(base: str = "", *, web_login: bool = False) -> Any:
    """Make a UI with two of Locust's pages."""
    app = Flask(__name__)
    pages = Blueprint("locust", __name__, url_prefix=base or None)
    pages.add_url_rule("/", "index", lambda: "the page")
    pages.add_url_rule("/login", "login", lambda: "log in")
    app.register_blueprint(pages)
    return SimpleNamespace(app=app, web_login=web_login, login_manager=LoginManager(app))


def open_client(page: Any, base: str = "") -> FlaskClient:
    guard(page, base)
    client: FlaskClient = page.app.test_client()
    return client


def test_request_with_an_objection_is_refused_with_its_reason() -> None:
    client = open_client(make_page())
    assert client.get("/").text == "the page"
    # A link on another site may lead to the page, and no form of it may be sent.
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/", headers=elsewhere).text == "the page"
    assert client.post("/", headers=elsewhere).text == "refused: the request comes from a page of another site\n"
    refused = client.get("/", base_url=ELSEWHERE)
    assert (refused.status_code, refused.mimetype) == (403, "text/plain")
    assert refused.text.startswith("refused: the hostname lab.example.org could be rebound")


@pytest.mark.parametrize(("name", "value"), [(ENV_UI_LOGIN, "ann:secret"), (ENV_UI_ORIGINS, ELSEWHERE)])
def test_login_or_origin_allows_the_hostname(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert open_client(make_page(web_login=True)).get("/", base_url=ELSEWHERE).text == "the page"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (ENV_UI_LOGIN, "ann:secret", f"{ENV_UI_LOGIN} is set, and Locust was started without --web-login"),
        (ENV_UI_ORIGINS, "lab.example.org", f"^{ENV_UI_ORIGINS}: "),
    ],
)
def test_settings_that_cannot_hold_are_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(AccessError, match=said):
        guard(make_page())


@pytest.mark.parametrize("base", ["", "/load"])
def test_right_password_opens_a_session(monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    monkeypatch.setenv(ENV_UI_LOGIN, "ann:secret")
    page = make_page(base, web_login=True)
    client = open_client(page, base)
    assert page.auth_args == {"username_password_callback": "./lab/login"}
    for password, leads_to, user, error in (
        ("wrong", "/login", None, "Wrong user or password"),
        ("secret", "/", "ann", None),
    ):
        answer = client.post(f"{base}/lab/login", data={"username": "ann", "password": password})
        assert answer.headers["Location"] == base + leads_to
        with client.session_transaction() as session:
            assert (session.get("_user_id"), session["auth_error"]) == (user, error)
