"""Control access to Locust's web UI: refuse requests from other sites, and require a login if one is set.

The UI starts load with a plain POST, and Locust lets pages of every origin read its responses. While the UI is open in
one tab of a browser, a page in another tab could start a run and read the results. For each request, the browser names
the page that it comes from (the Fetch standard's Origin and Sec-Fetch-Site), which is enough to refuse it.
A page whose hostname is rebound to this address (DNS rebinding) has the same origin. So the hostname must be one that
cannot be registered: an IP address, localhost, or a name without a dot. With a login any name is allowed, because a
session cookie belongs to one hostname.

Behind a proxy or a forwarded port, the page has another origin than the UI sees. `LAB_UI_ORIGINS` lists the allowed
origins; all others are refused.
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

from lab.base.environ import ENV_UI_LOGIN, ENV_UI_ORIGINS
from lab.load.origins import has_host, normalise, parse_origins

if TYPE_CHECKING:
    from locust.web import WebUI


class AccessError(Exception):
    """The login or the list of origins is invalid; the message says why."""


@dataclass(frozen=True, slots=True)
class Login:
    """The user and password of the UI, from the environment: every user of a machine can read its command lines."""

    user: str
    password: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self | None:
        """Parse `LAB_UI_LOGIN`; return None if it is not set.

        Raises:
            AccessError: it is not USER:PASSWORD.
        """
        text = environ.get(ENV_UI_LOGIN)
        if not text:
            return None
        user, _, password = text.partition(":")
        if not (user and password):
            raise AccessError(f"{ENV_UI_LOGIN} is not USER:PASSWORD")
        return cls(user, password)

    def admits(self, user: str, password: str) -> bool:
        """Return whether both are correct, in constant time."""
        names, words = (user, self.user), (password, self.password)
        same = [hmac.compare_digest(given.encode(), known.encode()) for given, known in (names, words)]
        return all(same)


class _User(UserMixin):  # type: ignore[misc]  # ships no types
    """The only user."""

    def __init__(self, name: str) -> None:
        self.id = name


def guard(web_ui: "WebUI", base_path: str = "") -> None:
    """Install the checks for all requests to the UI.

    Args:
        web_ui: Locust's.
        base_path: prefix of all its paths.

    Raises:
        AccessError: the login or the origins in the environment are invalid.
    """
    login = Login.from_environ(os.environ)
    try:
        origins = parse_origins(os.environ.get(ENV_UI_ORIGINS, ""))
    except ValueError as error:
        raise AccessError(f"{ENV_UI_ORIGINS}: {error}") from None
    app: Any = web_ui.app

    def refuse() -> Response | None:
        headers = dict(request.headers)
        why = find_objection(request.method, request.host, headers, has_login=login is not None, origins=origins)
        return Response(f"{why}\n", 403, mimetype="text/plain") if why else None

    app.before_request(refuse)
    if login is None:
        return
    if not web_ui.web_login:
        raise AccessError(f"{ENV_UI_LOGIN} is set, and Locust was started without --web-login")
    # New for each start, which ends all sessions.
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
    """Return why a request is refused; None if it is allowed.

    Args:
        host: the hostname, perhaps with a port, that it was sent to.
        has_login: whether the UI requires a login.
        origins: allowed in addition to the UI's own.
    """
    origin = headers.get("Origin")
    is_allowed = origin is not None and normalise(origin) in origins
    if origin is not None and not is_allowed and origin.partition("://")[2] != host:
        return f"refused: the request comes from a page of {origin}; {ENV_UI_ORIGINS} allows more origins"
    # A link on another site sends a GET, which changes nothing.
    is_harmless = method in ("GET", "HEAD") or is_allowed
    if not is_harmless and headers.get("Sec-Fetch-Site") not in (None, "same-origin", "none"):
        return "refused: the request comes from a page of another site"
    if not has_login and not _is_own_name(host) and not has_host(origins, host):
        return (
            f"refused: the hostname {host} could be rebound; use the IP address, set a login ({ENV_UI_LOGIN}), "
            f"or allow the origin ({ENV_UI_ORIGINS})"
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
