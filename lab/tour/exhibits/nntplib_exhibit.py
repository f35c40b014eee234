"""News: groups, threads, and articles, posted and read back.

Python 2: nntplib
Python 3: nntplib
Gone since: 3.13
Use instead: pynntp, shown here too; nntplib itself comes from Debian's python3-standard-nntplib
Servers: gallery_news
"""

from email.utils import make_msgid
from nntplib import NNTP, decode_header

from nntp import NNTPClient

from lab.tour.accounts import ANN, DOMAIN, WRONG_PASSWORD
from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures, breaking_off, silent

HOST, GROUP = "gallery_news", "gallery.test"


def login(password: str = ANN.password) -> NNTP:
    """Open a connection that may read and post."""
    return NNTP(HOST, user=ANN.user, password=password, readermode=True, timeout=10)


def post(news: NNTP, subject: str, answers: str = "") -> str:
    """Post an article and return its Message-ID."""
    message_id = make_msgid(domain=DOMAIN)
    lines = [f"From: Ann <{ANN.address}>", f"Newsgroups: {GROUP}", f"Subject: {subject}", f"Message-ID: {message_id}"]
    if answers:
        lines.append(f"References: {answers}")
    news.post("\r\n".join([*lines, "", "A line.", ".hidden? No: the first dot is doubled.", ""]).encode())
    return message_id


def visit() -> None:
    with login() as news:
        print(news.getwelcome().split()[0], "capabilities:", sorted(news.getcapabilities()))
        question = post(news, "Which model?")
        post(news, "Re: Which model?", answers=question)

        _, count, first, last, name = news.group(GROUP)
        print(name, "has articles:", count >= 2)
        _, overviews = news.over((first, last))
        thread = [each for _, each in overviews if question in (each["message-id"], each["references"])]
        for overview in thread:
            print(f"  {decode_header(overview['subject'])}, {overview[':lines']} lines", end=", ")
            print("an answer" if overview["references"] == question else "a question")
        _, article = news.article(question)
        print("read back:", [line for line in article.lines if line.startswith((b"Subject", b"A line", b".h"))])
        print("by number:", news.stat(last)[1] == last, "headers only:", len(news.head(question)[1].lines) > 3)

    # The successor takes headers as a dictionary, and handles dots and line ends.
    with NNTPClient(HOST, username=ANN.user, password=ANN.password, timeout=10) as news3:
        headers = {"From": f"Ann <{ANN.address}>", "Newsgroups": GROUP, "Subject": "By pynntp"}
        news3.post(headers, "A line.\n.hidden? No.\n")
        _, first, last, _ = news3.group(GROUP)
        print("pynntp:", "By pynntp" in [overview["Subject"] for _, overview in news3.xover((first, last))])


def failures() -> Failures:
    yield "wrong password", lambda: login(WRONG_PASSWORD)
    yield "wrong password, pynntp", lambda: NNTPClient(HOST, 119, ANN.user, WRONG_PASSWORD).group(GROUP)
    with login() as news:
        yield "unknown group", lambda: news.group("alt.none")
        yield "missing article", lambda: news.article("<none@gallery.test>")
        news.group(GROUP)
        yield "unknown number", lambda: news.stat(999999)
        yield "article without a group", lambda: news.post(b"Subject: lost\r\n\r\n.\r\n")
    yield "unknown host", lambda: NNTP(UNKNOWN_HOST)
    yield "closed port", lambda: NNTP(HOST, 9999)
    with breaking_off(b"200 ready\r\n", b"101 follows\r\nVERSION 2\r\n.\r\n", b"220 1 <a@b>\r\nhalf\r\n") as port:
        news = NNTP("127.0.0.1", port)
        yield "server closes in mid-transfer", lambda: news.article("<a@b>")
    with silent() as port:
        yield "no reply before the timeout", lambda: NNTP("127.0.0.1", port, timeout=SHORT)
