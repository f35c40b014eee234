"""Who may use Locust's web UI: nobody from another site, and with a login only who knows it.

The UI starts load with a plain POST, and Locust lets pages of every origin read its answers. Whoever has it open in one
tab of a browser could be made to start a run by a page in another tab, and be read. A browser says of each request
which page it comes from (the Fetch standard's Origin, and Sec-Fetch-Site), and that is all that is needed to refuse.
A page whose own name was pointed to this address (DNS rebinding) is of the same origin, so a name must be one that
nobody else can own: an address, localhost, or a name without a dot. With a login any name will do: a session's cookie
belongs to the name that it was made for.

Behind a proxy, or a port that something forwards, the page has another origin than the UI sees. `LAB_UI_ORIGINS` names
those that are meant; all others are refused as before.
"""

import hmac
import ipaddress
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from flask import Blueprint, Response, redirect, request, session, url_for
from flask_login import UserMixin, login_user

from lab.load.origins import VARIABLE as ORIGINS_VARIABLE
from lab.load.origins import has_host, normalise, parse_origins

if TYPE_CHECKING:
    from locust.web import WebUI

# USER:PASSWORD. In the environment, since everybody on a machine can read its command lines.
VARIABLE = "LAB_UI_LOGIN"


class AccessError(Exception):
    """The login or the list of origins cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who may come in."""

    user: str
    password: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self | None:
        """Read `LAB_UI_LOGIN`; None if it is not there.

        Raises:
            AccessError: it is not USER:PASSWORD.
        """
        text = environ.get(VARIABLE)
        if not text:
            return None
        user, _, password = text.partition(":")
        if not (user and password):
            raise AccessError(f"{VARIABLE} is not USER:PASSWORD")
        return cls(user, password)

    def admits(self, user: str, password: str) -> bool:
        """Whether that is it; takes as long for a wrong one, whatever is wrong with it."""
        names, words = (user, self.user), (password, self.password)
        same = [hmac.compare_digest(given.encode(), known.encode()) for given, known in (names, words)]
        return all(same)


class _User(UserMixin):  # type: ignore[misc]  # ships no types
    """The one user that there is."""

    def __init__(self, name: str) -> None:
        self.id = name


def guard(web_ui: "WebUI", base_path: str = "") -> None:
    """Put the checks in front of everything that the UI serves.

    Args:
        web_ui: Locust's.
        base_path: what each of its paths begins with.

    Raises:
        AccessError: a login was asked for, or origins, and cannot be used.
    """
    login = Login.from_environ(os.environ)
    try:
        origins = parse_origins(os.environ.get(ORIGINS_VARIABLE, ""))
    except ValueError as error:
        raise AccessError(f"{ORIGINS_VARIABLE}: {error}") from None
    app: Any = web_ui.app

    def refuse() -> Response | None:
        headers = dict(request.headers)
        why = find_objection(request.method, request.host, headers, has_login=login is not None, origins=origins)
        return Response(f"{why}\n", 403, mimetype="text/plain") if why else None

    app.before_request(refuse)
    if login is None:
        return
    if not web_ui.web_login:
        raise AccessError(f"{VARIABLE} is set, and Locust was started without --web-login")
    # New for each start: nobody stays logged in beyond it.
    app.secret_key = secrets.token_bytes(32)
    app.config.update(SESSION_COOKIE_SAMESITE="Strict")
    web_ui.login_manager.user_loader(lambda name: _User(name) if name == login.user else None)
    pages = Blueprint("lab_login", __name__, url_prefix=base_path or None)

    @pages.route("/lab/login", methods=["POST"])
    def log_in() -> Any:
        if login.admits(request.form.get("username", ""), request.form.get("password", "")):
            session["auth_error"] = None
            login_user(_User(login.user))
            return redirect(url_for("locust.index"))
        session["auth_error"] = "Wrong user or password"
        return redirect(url_for("locust.login"))

    app.register_blueprint(pages)
    web_ui.auth_args = {"username_password_callback": "./lab/login"}


def find_objection(
    method: str, host: str, headers: Mapping[str, str], *, has_login: bool, origins: Collection[str] = ()
) -> str | None:
    """Why a request is refused; None if it is not.

    Args:
        method: of HTTP.
        host: the name, and perhaps a port, that it was sent to.
        headers: what the browser, or another program, says of it.
        has_login: whether whoever comes in has to log in.
        origins: those that are allowed beside the UI's own.
    """
    origin = headers.get("Origin")
    is_allowed = origin is not None and normalise(origin) in origins
    if origin is not None and not is_allowed and origin.partition("://")[2] != host:
        return f"refused: the request comes from a page of {origin}; {ORIGINS_VARIABLE} allows others than the UI's own"
    # Following a link from elsewhere is a GET, and starts nothing.
    is_harmless = method in ("GET", "HEAD") or is_allowed
    if not is_harmless and headers.get("Sec-Fetch-Site") not in (None, "same-origin", "none"):
        return "refused: the request comes from a page of another site"
    if not has_login and not _is_own_name(host) and not has_host(origins, host):
        return (
            f"refused: {host} could be a name of somebody else's; use the address itself, a login ({VARIABLE}), "
            f"or allow it ({ORIGINS_VARIABLE})"
        )
    return None


def _is_own_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name
    return True
