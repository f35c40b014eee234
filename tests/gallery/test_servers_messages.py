"""The servers of messages (mail and news): mail sent by one protocol is read by the others, and nothing is relayed."""

import imaplib
import poplib
import smtplib
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.message import EmailMessage

import pytest

from tests.gallery.conftest import ANN, BOB, PATIENCE, WRONG, Talk

SMTP, MAIL, NEWS, SMTPD = "gallery_smtp", "gallery_mail", "gallery_news", "gallery_smtpd"
DOMAIN = "gallery.test"


def compose(subject: str, to: str = f"bob@{DOMAIN}", text: str = "Hello.") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = f"ann@{DOMAIN}", to, subject
    message.set_content(text)
    return message


def open_smtp(way: str, tls: ssl.SSLContext) -> smtplib.SMTP:
    if way == "smtps":
        return smtplib.SMTP_SSL(SMTP, 465, timeout=PATIENCE, context=tls)
    client = smtplib.SMTP(SMTP, 587 if way == "submission" else 25, timeout=PATIENCE)
    if way != "clear":
        client.starttls(context=tls)
    if way == "submission":
        client.login(*ANN)
    return client


def open_imap(way: str, tls: ssl.SSLContext) -> imaplib.IMAP4:
    if way == "implicit":
        return imaplib.IMAP4_SSL(MAIL, timeout=PATIENCE, ssl_context=tls)
    client = imaplib.IMAP4(MAIL, timeout=PATIENCE)
    if way == "starttls":
        client.starttls(tls)
    return client


def open_pop(way: str, tls: ssl.SSLContext) -> poplib.POP3:
    if way == "implicit":
        return poplib.POP3_SSL(MAIL, timeout=PATIENCE, context=tls)
    client = poplib.POP3(MAIL, timeout=PATIENCE)
    if way == "starttls":
        client.stls(tls)
    return client


def read_imap(client: imaplib.IMAP4, subject: str) -> bytes:
    """Wait for the message with this subject."""
    deadline = time.monotonic() + PATIENCE
    while True:
        client.select()
        # By UIDs, and with an eye on which answer is a message: others are at work in the same mailbox.
        if numbers := client.uid("SEARCH", "SUBJECT", subject)[1][0].split():
            answers = client.uid("FETCH", numbers[0].decode(), "(RFC822)")[1]
            (message,) = [answer[1] for answer in answers if isinstance(answer, tuple)]
            assert len(numbers) == 1
            return bytes(message)
        assert time.monotonic() < deadline, "no message came"
        time.sleep(0.02)


class TestMail:
    @pytest.mark.parametrize("way", ["clear", "starttls", "smtps", "submission"])
    def test_sent_mail_is_read_by_imap_and_by_pop3(self, way: str, tls: ssl.SSLContext, name: str) -> None:
        text = "Dots:\n.\n..\nLänge\n" + 200 * "x"
        with open_smtp(way, tls) as client:
            assert client.send_message(compose(name, text=text)) == {}
        reading = {"clear": "clear", "starttls": "starttls"}.get(way, "implicit")
        with open_imap(reading, tls) as reader:
            reader.login(*BOB)
            stored = read_imap(reader, name)
        post = open_pop(reading, tls)
        try:
            post.user(BOB[0])
            post.pass_(BOB[1])
            numbers = [int(line.split()[0]) for line in post.list()[1]]
            messages = [b"\r\n".join(post.retr(number)[1]) + b"\r\n" for number in numbers]
        finally:
            post.quit()
        assert [message for message in messages if name.encode() in message] == [stored]
        assert b"Received:" in stored
        assert b"\r\n.\r\n..\r\n" in stored or b"=" in stored

    def test_each_account_has_its_own_mailbox(self, tls: ssl.SSLContext, name: str) -> None:
        with open_smtp("clear", tls) as client:
            client.send_message(compose(name, to=f"ann@{DOMAIN}"))
        with open_imap("clear", tls) as ann, open_imap("clear", tls) as bob:
            ann.login(*ANN)
            read_imap(ann, name)
            bob.login(*BOB)
            bob.select()
            assert bob.search(None, "SUBJECT", name) == ("OK", [b""])

    @pytest.mark.parametrize("way", ["clear", "submission"])
    @pytest.mark.parametrize(
        "address",
        [
            "x@example.com",
            f"x%example.com@{DOMAIN}",
            f"@{DOMAIN}:x@example.com",
            "x@example.com@gallery.test",
            "nobody@gallery.test",
        ],
    )
    def test_server_does_not_relay(self, way: str, tls: ssl.SSLContext, address: str) -> None:
        with open_smtp(way, tls) as client:
            client.ehlo()
            assert client.mail(f"ann@{DOMAIN}")[0] == 250
            assert 500 <= client.rcpt(address)[0] < 600

    def test_accounts_log_in_over_tls(self, tls: ssl.SSLContext) -> None:
        """On port 465, which RFC 8314 prefers, and on 587."""
        with open_smtp("smtps", tls) as client:
            client.ehlo()
            assert {"PLAIN", "LOGIN"} <= set(client.esmtp_features["auth"].split())
            assert client.login(*ANN)[0] == 235
        with open_smtp("smtps", tls) as client, pytest.raises(smtplib.SMTPAuthenticationError):
            client.login(*WRONG)

    def test_submission_is_for_accounts_and_over_tls(self, tls: ssl.SSLContext) -> None:
        with smtplib.SMTP(SMTP, 587, timeout=PATIENCE) as client:
            client.ehlo()
            assert "auth" not in client.esmtp_features
            assert client.mail(f"ann@{DOMAIN}")[0] == 530
            client.starttls(context=tls)
            client.ehlo()
            assert client.mail(f"ann@{DOMAIN}")[0] == 530
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login(*WRONG)

    @pytest.mark.parametrize("way", ["clear", "implicit"])
    def test_wrong_password(self, way: str, tls: ssl.SSLContext) -> None:
        with open_imap(way, tls) as client, pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
            client.login(*WRONG)
        post = open_pop(way, tls)
        try:
            post.user(WRONG[0])
            with pytest.raises(poplib.error_proto, match="AUTH"):
                post.pass_(WRONG[1])
        finally:
            post.quit()

    def test_challenge_response_logins_work(self, tls: ssl.SSLContext) -> None:
        with open_imap("clear", tls) as client:
            assert client.login_cram_md5(*BOB)[0] == "OK"
        post = open_pop("clear", tls)
        try:
            assert post.apop(*BOB).startswith(b"+OK")
        finally:
            post.quit()

    def test_lmtp_reports_the_delivery_per_recipient(self, name: str, tls: ssl.SSLContext) -> None:
        with smtplib.LMTP(MAIL, 24, timeout=PATIENCE) as client:
            wrong = f"nobody@{DOMAIN}"
            assert list(client.sendmail("", [f"bob@{DOMAIN}", wrong], compose(name).as_bytes())) == [wrong]
        with open_imap("clear", tls) as reader:
            reader.login(*BOB)
            read_imap(reader, name)


class TestNews:
    @pytest.fixture
    def reader(self, talk: Callable[[str, int], Talk]) -> Iterator[Talk]:
        with talk(NEWS, 119) as reader:
            assert reader.hear().startswith("200 ")
            yield reader

    def login(self, reader: Talk, account: tuple[str, str] = ANN) -> str:
        assert reader.ask(f"AUTHINFO USER {account[0]}").startswith("381 ")
        return reader.ask(f"AUTHINFO PASS {account[1]}")[:3]

    def post(self, reader: Talk, group: str, subject: str) -> str:
        assert reader.ask("POST").startswith("340 ")
        for line in (f"From: ann@{DOMAIN}", f"Newsgroups: {group}", f"Subject: {subject}", "", "..", "text", "."):
            reader.say(line)
        return reader.hear()

    @pytest.mark.parametrize("secure", [False, True], ids=["clear", "starttls"])
    def test_posted_article_is_readable(self, reader: Talk, secure: bool, name: str, tls: ssl.SSLContext) -> None:
        if secure:
            assert reader.ask("STARTTLS").startswith("382 ")
            reader.secure(tls, NEWS)
        assert self.login(reader) == "281"
        status, *_, message_id = self.post(reader, DOMAIN, name).split()
        assert status == "240"
        code, count, first, last, group = reader.ask(f"GROUP {DOMAIN}").split()[:5]
        assert (code, group) == ("211", DOMAIN)
        assert int(count) >= 1
        assert reader.ask(f"OVER {first}-{last}").startswith("224 ")
        assert any(name in line for line in reader.hear_until("."))
        assert reader.ask(f"ARTICLE {message_id}").startswith("220 ")
        lines = reader.hear_until(".")
        assert f"Subject: {name}" in lines
        # A line of one full stop comes with another before it.
        assert lines[-2:] == ["..", "text"]

    @pytest.mark.parametrize("account", [WRONG, ("nobody", "secret"), ("ann", "")], ids=["password", "user", "empty"])
    def test_wrong_logins_are_refused(self, reader: Talk, account: tuple[str, str]) -> None:
        assert reader.ask(f"AUTHINFO USER {account[0]}").startswith("381 ")
        assert reader.ask(f"AUTHINFO PASS {account[1]}")[:3] in ("481", "501")
        assert reader.ask(f"GROUP {DOMAIN}").startswith("480 ")

    def test_reading_and_posting_require_a_login(self, reader: Talk) -> None:
        assert reader.ask(f"GROUP {DOMAIN}").startswith("480 ")
        assert reader.ask("POST")[:3] in ("440", "480")

    def test_article_that_is_too_large(self, reader: Talk, name: str) -> None:
        self.login(reader)
        assert reader.ask("POST").startswith("340 ")
        for line in (f"From: ann@{DOMAIN}", f"Newsgroups: {DOMAIN}", f"Subject: {name}", "", *["x" * 98] * 10_000, "."):
            reader.say(line)
        assert reader.hear().startswith("441 ")

    def test_group_that_does_not_exist(self, reader: Talk, name: str) -> None:
        self.login(reader)
        assert reader.ask(f"GROUP {name}").startswith("411 ")
        assert self.post(reader, name, "lost").startswith("441 ")
        assert reader.ask("NONSENSE").startswith("500 ")


class TestSmtpd:
    @pytest.mark.parametrize("domain", [DOMAIN, DOMAIN.upper()])
    def test_mail_for_its_domain_is_accepted(self, name: str, domain: str) -> None:
        """Domains are the same in capitals and in small letters, RFC 5321, section 2.4."""
        with smtplib.SMTP(SMTPD, 2525, timeout=PATIENCE) as client:
            client.ehlo()
            client.mail(f"ann@{DOMAIN}")
            client.rcpt(f"bob@{domain}")
            code, said = client.data(compose(name).as_bytes())
            assert (code, said.startswith(b"2.0.0 accepted: ")) == (250, True)
            assert said.decode().endswith(f"bytes for bob@{domain}")

    @pytest.mark.parametrize(
        "address", ["x@example.com", "x@gallery.test.example.com", "x@notgallery.test", "x@a.gallery.test", "nobody"]
    )
    def test_server_does_not_relay(self, address: str) -> None:
        with smtplib.SMTP(SMTPD, 2525, timeout=PATIENCE) as client:
            with pytest.raises(smtplib.SMTPDataError, match="550"):
                client.sendmail("ann@gallery.test", [f"bob@{DOMAIN}", address], "Subject: x\n\nx")
            assert client.noop()[0] == 250

    @pytest.mark.parametrize("address", ["<>", "x@example.com.", "<@@>", "a" * 600])
    def test_unparsable_address_is_refused(self, address: str) -> None:
        """Some of these end the client's connection by an error in smtpd, but no other connection."""
        with smtplib.SMTP(SMTPD, 2525, timeout=PATIENCE) as other:
            client = smtplib.SMTP(SMTPD, 2525, timeout=PATIENCE)
            with suppress(smtplib.SMTPServerDisconnected, smtplib.SMTPResponseException), client:
                client.ehlo()
                client.mail(f"ann@{DOMAIN}")
                client.putcmd(f"RCPT TO:{address}")
                client.getreply()
            client.close()
            assert other.noop()[0] == 250

    def test_message_that_is_too_large(self) -> None:
        with smtplib.SMTP(SMTPD, 2525, timeout=PATIENCE) as client:
            client.ehlo()
            assert client.esmtp_features["size"] == "1048576"
            assert client.mail(f"ann@{DOMAIN}", ["SIZE=1048577"])[0] == 552
            client.mail(f"ann@{DOMAIN}")
            client.rcpt(f"bob@{DOMAIN}")
            # It says no size, and is as large all the same.
            assert client.data(b"\r\n".join([b"x" * 78] * 14_000))[0] == 552
            # smtpd goes on taking data after that, and so this client is lost to it; the others are not.
            client.close()
        with smtplib.SMTP(SMTPD, 2525, timeout=PATIENCE) as client:
            assert client.noop()[0] == 250
