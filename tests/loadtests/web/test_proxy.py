"""The web UI behind a reverse proxy with another hostname, which forwards a path to it."""

import contextlib
import http.client
import http.server
import json
import re
import threading
import urllib.parse

import pytest

NAME = "load.example.org"
ORIGIN = f"https://{NAME}"


@contextlib.contextmanager
def open_proxy(port, *, keeps_name):
    """Start a proxy in front of a local port; return its port."""

    class Proxy(http.server.BaseHTTPRequestHandler):
        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = dict(self.headers) | ({} if keeps_name else {"Host": f"127.0.0.1:{port}"})
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for name in ("Content-Type", "Location", "Set-Cookie"):
                for value in answer.headers.get_all(name, []):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            upstream.close()

        do_GET = do_POST = handle_any  # noqa: N815 - the names are http.server's

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class Browser:
    """Send requests to the proxy as a browser does for a page of an origin."""

    def __init__(self, port, origin=ORIGIN):
        self._port = port
        self._origin = origin
        self._cookie = ""

    def ask(self, method, path, **fields):
        headers = {"Host": urllib.parse.urlsplit(self._origin).netloc, "Cookie": self._cookie}
        if method == "POST":
            headers |= {"Origin": self._origin, "Sec-Fetch-Site": "same-origin"}
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        link.request(method, path, urllib.parse.urlencode(fields), headers)
        answer = link.getresponse()
        self._cookie = (answer.headers.get("Set-Cookie") or self._cookie).partition(";")[0]
        text = answer.read().decode()
        link.close()
        return answer.status, answer.headers.get("Location"), text


def port_of(page):
    return urllib.parse.urlsplit(page.url).port


RIGHT = {"username": "ann", "password": "secret"}
WRONG = {"password": "wrong"}
FORM = {"user_count": 1, "spawn_rate": 10, "models": "it", "workload": "ping"}


@pytest.mark.parametrize("keeps_name", [True, False])
def test_allowed_page_behind_a_proxy_runs_a_test(keeps_name, url, open_ui):
    with (
        open_ui(url, "--web-base-path", "/load", base_path="/load", environ={"LAB_UI_ORIGINS": ORIGIN}) as page,
        open_proxy(port_of(page), keeps_name=keeps_name) as port,
    ):
        browser = Browser(port)
        status, _, text = browser.ask("GET", "/load/")
        assert status == 200
        scripts = re.findall(r'src="([^"]+\.js)"', text)
        assert scripts
        for script in scripts:
            assert browser.ask("GET", urllib.parse.urljoin("/load/", script))[0] == 200
        for other in ("https://evil.test", f"https://{NAME}:8443"):
            status, _, text = Browser(port, other).ask("POST", "/load/swarm", **FORM)
            assert status == 403
            assert "LAB_UI_ORIGINS" in text
        assert json.loads(browser.ask("GET", "/load/stats/requests")[2])["state"] == "ready"
        status, _, text = browser.ask("POST", "/load/swarm", **FORM)
        assert (status, json.loads(text)["success"]) == (200, True)
        assert browser.ask("GET", "/load/lab/times.csv")[0] == 200


def test_page_behind_a_proxy_is_refused_without_an_allowed_origin(url, open_ui):
    with open_ui(url) as page:
        for keeps_name in (True, False):
            with open_proxy(port_of(page), keeps_name=keeps_name) as port:
                status, _, text = Browser(port).ask("POST", "/swarm", **FORM)
                assert status == 403
                assert "LAB_UI_ORIGINS" in text
                assert Browser(port).ask("GET", "/")[0] == (403 if keeps_name else 200)


def test_login_has_the_base_path(url, open_ui):
    environ = {"LAB_UI_ORIGINS": ORIGIN, "LAB_UI_LOGIN": "ann:secret"}
    arguments = ["--web-base-path", "/load", "--web-login"]
    with (
        open_ui(url, *arguments, base_path="/load", is_public=False, environ=environ) as page,
        open_proxy(port_of(page), keeps_name=True) as port,
    ):
        browser = Browser(port)
        status, where, _ = browser.ask("GET", "/load/")
        assert (status, where.partition("?")[0]) == (302, "/load/login")
        assert browser.ask("POST", "/load/lab/login", **RIGHT | WRONG)[1] == "/load/login"
        assert browser.ask("POST", "/load/lab/login", **RIGHT)[1] == "/load/"
        assert browser.ask("GET", "/load/")[0] == 200
