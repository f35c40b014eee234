"""A dialogue with a terminal server: wait for a prompt, answer it, continue to read.

Python 2: telnetlib
Python 3: telnetlib
Gone since: 3.13
Use instead: SSH, or telnetlib3, shown here too; telnetlib itself comes from Debian's python3-zombie-telnetlib
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

    def refuse(stream: socket.socket, verb: bytes, option: bytes) -> None:
        """Decline an option, as a simple client does, and record it."""
        options.append(f"{VERBS[verb]} {option[0]}")
        if verb in (DO, WILL):
            stream.sendall(IAC + (WONT if verb == DO else DONT) + option)

    with Telnet(HOST, timeout=10) as telnet:
        telnet.set_option_negotiation_callback(refuse)
        greeting = telnet.read_until(PROMPT, timeout=10)
        print(*greeting.decode().splitlines(), sep="\n")
        print("options that the server offers:", sorted(set(options)))

        telnet.write(b"echo hello\r\n")
        index, match, _ = telnet.expect([rb"hello\r?\n", rb"unknown"], timeout=10)
        print("echo:", index, match and match.group().strip())
        telnet.read_until(PROMPT, timeout=10)
        telnet.write(b"nonsense\r\n")
        print("nonsense:", telnet.read_until(PROMPT, timeout=10).decode().strip().splitlines())
        telnet.write(b"quit\r\n")
        print("the end:", telnet.read_all().decode().strip().splitlines())

    # The successor knows the options, and accepts those that it supports.
    with TelnetConnection(HOST, timeout=10, connect_maxwait=1) as telnet3:
        telnet3.read_until(PROMPT)
        telnet3.write("echo hello again\r")
        print("telnetlib3:", telnet3.read_until(PROMPT).splitlines()[-2])


def converse(port: int) -> bytes:
    with Telnet("127.0.0.1", port, timeout=SHORT) as telnet:
        return telnet.read_some() + telnet.read_until(PROMPT) + telnet.read_eager()


def failures() -> Failures:
    yield "unknown host", lambda: Telnet(UNKNOWN_HOST)
    yield "closed port", lambda: Telnet(HOST, 9999)
    yield "closed port, telnetlib3", lambda: TelnetConnection(HOST, 9999, timeout=10).connect()
    with breaking_off(b"Welcome\r\n") as port:
        yield "server closes in mid-dialogue", lambda: converse(port)
    with silent() as port:
        # read_until returns what has arrived at its timeout; the other methods raise.
        yield "no reply before the timeout", lambda: converse(port)
