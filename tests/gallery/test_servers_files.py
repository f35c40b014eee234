"""The servers of files (FTP, web, gopher): what they serve, and what they refuse."""

import ftplib
import hashlib
import http.client
import io
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from http.cookiejar import CookieJar
from urllib.robotparser import RobotFileParser

import pytest

from tests.gallery.conftest import ANN, BOB, PATIENCE, WRONG, Talk

FTP, WEB, GOPHER = "gallery_ftp", "gallery_web", "gallery_gopher"
LINES = "".join(f"line {number}\n" for number in range(1, 11)).encode()


def fetch(url: str, data: bytes | None = None, **headers: str) -> bytes:
    request = urllib.request.Request(url, data, headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        return bytes(response.read())


def refused(url: str, data: bytes | None = None, **headers: str) -> int:
    """Return the status of a refused request."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(url, data, **headers)
    caught.value.close()
    return int(caught.value.code)


class TestFtp:
    @pytest.fixture(params=["clear", "tls"])
    def ftp(self, request: pytest.FixtureRequest, tls: ssl.SSLContext) -> Iterator[ftplib.FTP]:
        if request.param == "clear":
            with ftplib.FTP(FTP, *ANN, timeout=PATIENCE) as client:
                yield client
        else:
            with ftplib.FTP_TLS(FTP, *ANN, timeout=PATIENCE, context=tls) as secure:
                secure.prot_p()
                yield secure

    @pytest.mark.parametrize("passive", [True, False], ids=["passive", "active"])
    def test_uploaded_file_is_readable_over_http(self, ftp: ftplib.FTP, passive: bool, name: str) -> None:
        content = name.encode() * 10_000
        ftp.set_pasv(passive)
        ftp.storbinary(f"STOR pub/{name}", io.BytesIO(content))
        assert ftp.size(f"pub/{name}") == len(content)
        assert f"pub/{name}" in ftp.nlst("pub")
        received: list[bytes] = []
        ftp.retrbinary(f"RETR pub/{name}", received.append, rest=100)
        assert b"".join(received) == content[100:]
        assert fetch(f"http://{WEB}/pub/{name}") == content
        ftp.delete(f"pub/{name}")
        assert refused(f"http://{WEB}/pub/{name}") == 404

    def test_login_starts_in_the_directory_of_the_welcome_file(self, ftp: ftplib.FTP) -> None:
        assert ftp.pwd() == "/"
        assert dict(ftp.mlsd(facts=["type"]))["pub"]["type"] == "dir"
        lines: list[str] = []
        ftp.retrlines("RETR welcome.txt", lines.append)
        assert "http://gallery_web/pub/" in lines[0]

    def test_directories_and_names(self, ftp: ftplib.FTP, name: str) -> None:
        ftp.mkd(f"pub/{name}")
        ftp.cwd(f"pub/{name}")
        ftp.storbinary("STOR a", io.BytesIO(b"first "))
        ftp.storbinary("APPE a", io.BytesIO(b"second"))
        ftp.rename("a", "b")
        assert fetch(f"http://{WEB}/pub/{name}/b") == b"first second"
        ftp.delete("b")
        ftp.cwd("/")
        ftp.rmd(f"pub/{name}")
        assert f"pub/{name}" not in ftp.nlst("pub")

    def test_data_port_is_one_of_fifty(self, ftp: ftplib.FTP) -> None:
        numbers = re.search(r"\((.*)\)", ftp.sendcmd("PASV"))
        assert numbers
        high, low = numbers[1].split(",")[-2:]
        assert 30_000 <= int(high) * 256 + int(low) < 30_050

    @pytest.mark.parametrize(
        "command",
        ["CWD ../../etc", "CWD /etc", "RETR ../../etc/passwd", "RETR /srv/accounts", "RETR pub/../../accounts",
         "SIZE /etc/passwd", "MKD ../x", "DELE welcome.txt", "DELE ../accounts", "RNFR ../accounts"],
    )  # fmt: skip
    def test_paths_outside_the_directory_are_unreachable(self, ftp: ftplib.FTP, command: str) -> None:
        with pytest.raises(ftplib.error_perm, match="550"):
            ftp.sendcmd(command)

    def test_parent_of_the_login_directory_is_itself(self, ftp: ftplib.FTP) -> None:
        ftp.cwd("../../..")
        assert ftp.pwd() == "/"
        assert set(ftp.nlst()) == {"pub", "welcome.txt"}
        assert {path.rpartition("/")[2] for path in ftp.nlst("../..")} == {"pub", "welcome.txt"}

    def test_only_the_writable_directory_is_writable(self, ftp: ftplib.FTP) -> None:
        with pytest.raises(ftplib.error_perm, match="550"):
            ftp.storbinary("STOR x", io.BytesIO(b"x"))

    @pytest.mark.parametrize(
        "account", [WRONG, ("anonymous", "x@y"), ("root", ""), ("lab", "")], ids=lambda pair: pair[0]
    )
    def test_wrong_logins_are_refused(self, account: tuple[str, str]) -> None:
        with ftplib.FTP(FTP, timeout=PATIENCE) as client, pytest.raises(ftplib.error_perm, match="530"):
            client.login(*account)

    def test_ftp_refuses_the_bounce_attack(self) -> None:
        """The bounce attack: a PORT with an address that is not the client's own."""
        with ftplib.FTP(FTP, *BOB, timeout=PATIENCE) as client, pytest.raises(ftplib.error_perm, match="500"):
            client.sendcmd("PORT 127,0,0,1,0,25")


class TestWeb:
    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_static_files(self, scheme: str, tls: ssl.SSLContext) -> None:
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=tls))
        for path, kind, content in (("/", "text/html", b"<title>"), ("/lines.txt", "text/plain", LINES)):
            with opener.open(f"{scheme}://{WEB}{path}", timeout=PATIENCE) as response:
                assert response.headers.get_content_type() == kind
                assert content in response.read()

    @pytest.mark.parametrize(
        ("asked", "status", "content"),
        [("0-6", 206, LINES[:7]), ("-8", 206, LINES[-8:]), ("7-", 206, LINES[7:]), ("1000-", 416, None)],
    )
    def test_ranges(self, asked: str, status: int, content: bytes | None) -> None:
        with closing(http.client.HTTPConnection(WEB, timeout=PATIENCE)) as client:
            client.request("GET", "/lines.txt", headers={"Range": f"bytes={asked}"})
            response = client.getresponse()
            assert response.status == status
            assert content in (None, response.read())

    def test_connection_is_kept_until_closed(self) -> None:
        with closing(http.client.HTTPConnection(WEB, timeout=PATIENCE)) as client:
            ports = set()
            for close in ("", "close"):
                client.request("GET", "/lines.txt", headers={"Connection": close} if close else {})
                ports.add(client.sock.getsockname() if client.sock else None)
                response = client.getresponse()
                assert response.read() == LINES
                assert response.will_close == bool(close)
            assert len(ports) == 1

    def test_redirect_leads_to_the_lines(self) -> None:
        with urllib.request.urlopen(f"http://{WEB}/redirect", timeout=PATIENCE) as response:
            assert (response.url, response.read()) == (f"http://{WEB}/lines.txt", LINES)
        with closing(http.client.HTTPConnection(WEB, timeout=PATIENCE)) as client:
            client.request("GET", "/redirect")
            assert client.getresponse().status == 302

    @pytest.mark.parametrize("path", ["/missing", "/cgi-bin/missing.py", "/basic", "/pub/missing"])
    def test_missing_page_is_404(self, path: str) -> None:
        assert refused(f"http://{WEB}{path}") in ((401,) if path == "/basic" else (404,))

    @pytest.mark.parametrize("kind", ["basic", "digest"])
    def test_authentication(self, kind: str) -> None:
        url = f"http://{WEB}/{kind}/secret.txt"

        def open_as(account: tuple[str, str]) -> bytes:
            passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
            passwords.add_password(kind, url, *account)
            handler = {"basic": urllib.request.HTTPBasicAuthHandler, "digest": urllib.request.HTTPDigestAuthHandler}
            with urllib.request.build_opener(handler[kind](passwords)).open(url, timeout=PATIENCE) as response:
                return bytes(response.read())

        assert kind.title().encode() in open_as(ANN)
        assert kind.title().encode() in open_as(BOB)
        assert refused(url) == 401

    @pytest.mark.parametrize("kind", ["basic", "digest"])
    def test_wrong_password(self, kind: str) -> None:
        """Without urllib, which tries a wrong digest five times, each with the server's delay."""
        path = f"/{kind}/secret.txt"
        with closing(http.client.HTTPConnection(WEB, timeout=PATIENCE)) as client:
            client.request("GET", path)
            response = client.getresponse()
            response.read()
            challenge = response.headers["WWW-Authenticate"]
            assert challenge.lower().startswith(kind)
            fields = dict(re.findall(r'(\w+)="?([^",]*)"?', challenge))
            assert fields["realm"] == kind
            if kind == "basic":
                headers = {"Authorization": "Basic YW5uOndyb25n"}  # ann:wrong
            else:
                first = hashlib.md5(b"ann:digest:wrong", usedforsecurity=False).hexdigest()
                second = hashlib.md5(f"GET:{path}".encode(), usedforsecurity=False).hexdigest()
                text = f"{first}:{fields['nonce']}:00000001:c:auth:{second}"
                answer = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
                headers = {
                    "Authorization": f'Digest username="ann", realm="digest", nonce="{fields["nonce"]}", uri="{path}", '
                    f'qop=auth, nc=00000001, cnonce="c", algorithm=MD5, response="{answer}"'
                }
            client.request("GET", path, headers=headers)
            assert client.getresponse().status == 401

    def test_cookies_count_visits(self) -> None:
        jar = CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        for visit in (1, 2, 3):
            with opener.open(f"http://{WEB}/cgi-bin/cookies.py", timeout=PATIENCE) as response:
                assert response.read() == b"visits %d\n" % visit
        assert {cookie.name: cookie.value for cookie in jar} == {"visits": "3", "flavour": '"chocolate chip"'}

    def test_cookies_say_how_long_and_for_whom_they_are(self) -> None:
        with closing(http.client.HTTPConnection(WEB, timeout=PATIENCE)) as client:
            client.request("GET", "/cgi-bin/cookies.py", headers={"Cookie": "visits=7; flavour=vanilla"})
            response = client.getresponse()
            assert response.read() == b"visits 8\n"
            assert {tuple(sorted(value.split("; "))) for value in response.headers.get_all("Set-Cookie", [])} == {
                ("HttpOnly", "flavour=vanilla"),
                ("Max-Age=3600", "Path=/cgi-bin/", "visits=8"),
            }

    def test_robots(self) -> None:
        robots = RobotFileParser(f"http://{WEB}/robots.txt")
        robots.read()
        assert robots.can_fetch("anybody", f"http://{WEB}/lines.txt")
        assert not robots.can_fetch("anybody", f"http://{WEB}/private/")
        delay: object = robots.crawl_delay("anybody")  # an int, unlike what typeshed says
        assert delay == 2
        assert robots.site_maps() == [f"http://{WEB}/sitemap.xml"]
        assert b"<urlset" in fetch(f"http://{WEB}/sitemap.xml")

    def test_form_by_get_and_by_post(self) -> None:
        url = f"http://{WEB}/cgi-bin/form.py"
        query = urllib.parse.urlencode({"a": "1 & 2", "b": "ä", "c": ""})
        assert fetch(f"{url}?{query}").decode() == "GET\na = 1 & 2\nb = ä\nc = \n"
        assert fetch(url, query.encode()).decode().partition("\n")[2] == "a = 1 & 2\nb = ä\nc = \n"

    def test_upload(self, name: str) -> None:
        parts = (
            ('name="text"', "", b"hello"),
            (f'name="file"; filename="{name}"', "Content-Type: application/x-thing\r\n", bytes(range(256)) * 100),
        )
        body = b"".join(
            f"--{name}\r\nContent-Disposition: form-data; {fields}\r\n{more}\r\n".encode() + content + b"\r\n"
            for fields, more, content in parts
        )
        kind = {"Content-Type": f"multipart/form-data; boundary={name}"}
        answer = fetch(f"http://{WEB}/cgi-bin/form.py", body + f"--{name}--\r\n".encode(), **kind).decode()
        assert answer.splitlines() == [
            "POST multipart/form-data",
            "text = hello",
            f"file: {name}, 25600 bytes, application/x-thing",
        ]

    def test_form_in_chunks(self) -> None:
        with closing(http.client.HTTPConnection(WEB, timeout=PATIENCE)) as client:
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            client.request("POST", "/cgi-bin/form.py", iter([b"a=", b"1&", b"b=2"]), kind, encode_chunked=True)
            assert client.getresponse().read().decode().splitlines()[1:] == ["a = 1", "b = 2"]

    @pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
    @pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
    def test_form_that_is_too_large(self, kind: str, chunked: bool) -> None:
        """Refused by its declared size, or when it grows too large."""
        with closing(http.client.HTTPConnection(WEB, timeout=PATIENCE)) as client:
            parts = [b"x" * 1024] * 65
            body = iter(parts) if chunked else b"".join(parts)
            client.request("POST", "/cgi-bin/form.py", body, {"Content-Type": kind}, encode_chunked=chunked)
            assert client.getresponse().status == 413
        assert fetch(f"http://{WEB}/cgi-bin/form.py", b"a=1").endswith(b"a = 1\n")

    @pytest.mark.parametrize("body", [b"--x\r\nContent-Disposition: form-data; name=", b"", b"\x00\xff" * 100])
    def test_malformed_form_is_refused(self, body: bytes) -> None:
        """The server survives any result of the script."""
        with closing(http.client.HTTPConnection(WEB, timeout=PATIENCE)) as client:
            client.request("POST", "/cgi-bin/form.py", body, {"Content-Type": "multipart/form-data; boundary=x"})
            assert client.getresponse().status in (200, 500)
        assert fetch(f"http://{WEB}/lines.txt") == LINES

    @pytest.mark.parametrize(
        ("query", "status", "content"),
        [
            ("seconds=0.1", 200, b"waited 0.1 s\n"),
            ("seconds=0", 200, b"waited 0 s\n"),
            ("seconds=31", 400, None),
            ("seconds=x", 400, None),
            ("seconds=nan", 400, None),
            ("seconds=-1", 400, None),
        ],
    )
    def test_slow_reply(self, query: str, status: int, content: bytes | None) -> None:
        with closing(http.client.HTTPConnection(WEB, timeout=PATIENCE)) as client:
            client.request("GET", f"/slow?{query}")
            response = client.getresponse()
            assert response.status == status
            assert content in (None, response.read())

    @pytest.mark.parametrize(
        "path", ["/../accounts", "/%2e%2e/accounts", "/pub/..%2f..%2faccounts", "/cgi-bin/../../accounts"]
    )
    def test_paths_outside_the_directory_are_unreachable(self, talk: Callable[[str, int], Talk], path: str) -> None:
        client = talk(WEB, 80)
        client.say(f"GET {path} HTTP/1.0\r\n")
        answer = client.hear_all()
        assert re.match(rb"HTTP/1\.[01] 40[034]", answer)
        assert b"secret" not in answer


class TestGopher:
    @pytest.fixture
    def ask(self, talk: Callable[[str, int], Talk]) -> Callable[[str], str]:
        def ask(selector: str) -> str:
            client = talk(GOPHER, 70)
            client.say(selector)
            return client.hear_all().decode()

        return ask

    def test_menu_links_to_every_item(self, ask: Callable[[str], str]) -> None:
        items = [line.split("\t") for line in ask("").splitlines() if line[:1] in "017"]
        assert {(item[0][0], item[1].lstrip("/")) for item in items if len(item) == 4} == {
            ("0", "about.txt"),
            ("1", "docs/"),
            ("7", "cgi-bin/search.sh"),
        }
        assert all(item[2:] == [GOPHER, "70"] for item in items if len(item) == 4)
        assert "RFC 1436" in ask("about.txt")
        assert "docs/gopher.txt" in ask("docs/")
        assert ask("").endswith(".\r\n")

    def test_search(self, ask: Callable[[str], str]) -> None:
        assert ask("cgi-bin/search.sh\tFINGER") == f"0finger\t/docs/finger.txt\t{GOPHER}\t70\r\n.\r\n"
        assert ask("cgi-bin/search.sh\tcame before").count("\t/docs/") == 2
        # As a browser writes a space in a query.
        assert ask("cgi-bin/search.sh\tcame+before").count("\t/docs/") == 2
        assert ask("cgi-bin/search.sh\tnothing like it").startswith("3Nothing was found")

    @pytest.mark.parametrize("query", ["", "-r", ".", ".*", "$(id)", "`id`", "';id;'", "../", "x\ty", "a" * 5000])
    def test_query_is_not_a_pattern_and_not_a_command(self, ask: Callable[[str], str], query: str) -> None:
        answer = ask(f"cgi-bin/search.sh\t{query}")
        assert "uid=" not in answer
        # Of these only the full stop stands in the documents.
        assert answer.count("\t/docs/") == (2 if query == "." else 0)

    @pytest.mark.parametrize(
        "selector",
        [
            "../accounts",
            "/../accounts",
            "docs/../../accounts",
            "/srv/accounts",
            "/etc/passwd",
            "~root",
            "docs/..",
            "missing",
        ],
    )
    def test_paths_outside_the_directory_are_unreachable(self, ask: Callable[[str], str], selector: str) -> None:
        answer = ask(selector)
        assert "Error" in answer or answer.startswith("3")
        assert "secret" not in answer
        assert "root:" not in answer
