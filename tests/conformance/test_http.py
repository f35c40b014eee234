"""http: what RFC 9110 and RFC 9112 say, of any server; each case is named after its section."""

import re
import time
from email.utils import parsedate_to_datetime

import pytest

from tests.support.http_link import HttpLink

pytestmark = pytest.mark.service("http", "stream")


def test_9110_6_6_1_date_is_the_present(target) -> None:
    with target.connect() as connection:
        date = HttpLink(connection).ask(b"GET / HTTP/1.1\r\nHost: lab.test\r\n\r\n").fields["date"]
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", date)
    assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 60
