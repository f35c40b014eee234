"""A dialogue with a terminal's server, by program: wait for a prompt, answer, read on.

Python 2: telnetlib
Python 3: telnetlib
Gone since: 3.13
Use instead: telnetlib3, which stands beside it here; telnetlib runs from Debian's python3-zombie-telnetlib. Or SSH
Servers: gallery_telnet
"""

import socket
from telnetlib import DO, DONT, IAC, WILL, WONT, Telnet

from telnetlib3.sync import TelnetConnection

from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures, breaking_off, silent

HOST, PROMPT = "gallery_telnet", b"choice> "
VERBS = {DO: "DO", DONT: "DONT", WILL: "WILL", WONT: "WONT"}


def visit() -> None:
    options = []

    def refuse(link: socket.socket, verb: bytes, option: bytes) -> None:
        """No to every offer, which is what a plain client says; and a note of it."""
        options.append(f"{VERBS[verb]} {option[0]}")
        if verb in (DO, WILL):
            link.sendall(IAC + (WONT if verb == DO else DONT) + option)

    with Telnet(HOST, timeout=10) as telnet:
        telnet.set_option_negotiation_callback(refuse)
        greeting = telnet.read_until(PROMPT, timeout=10)
        print(*greeting.decode().splitlines(), sep="\n")
        print("offers of options that no person sees:", sorted(set(options)))

        telnet.write(b"echo hello\r\n")
        index, match, _ = telnet.expect([rb"hello\r?\n", rb"unknown"], timeout=10)
        print("echo:", index, match and match.group().strip())
        telnet.read_until(PROMPT, timeout=10)
        telnet.write(b"nonsense\r\n")
        print("nonsense:", telnet.read_until(PROMPT, timeout=10).decode().strip().splitlines())
        telnet.write(b"quit\r\n")
        print("the end:", telnet.read_all().decode().strip().splitlines())

    # The successor: it knows the options, and says yes to those that it can serve.
    with TelnetConnection(HOST, timeout=10, connect_maxwait=1) as telnet3:
        telnet3.read_until(PROMPT)
        telnet3.write("echo hello again\r")
        print("telnetlib3:", telnet3.read_until(PROMPT).splitlines()[-2])


def converse(port: int) -> bytes:
    with Telnet("127.0.0.1", port, timeout=SHORT) as telnet:
        return telnet.read_some() + telnet.read_until(PROMPT) + telnet.read_eager()


def failures() -> Failures:
    yield "unknown host", lambda: Telnet(UNKNOWN_HOST)
    yield "nobody listens", lambda: Telnet(HOST, 9999)
    yield "nobody listens, telnetlib3", lambda: TelnetConnection(HOST, 9999, timeout=10).connect()
    with breaking_off(b"Welcome\r\n") as port:
        yield "server gone in mid-dialogue", lambda: converse(port)
    with silent() as port:
        # read_until gives what has come when its time is up; the others raise.
        yield "no answer in time", lambda: converse(port)
