"""Remote procedure calls: their names and arguments as XML in a POST.

Python 2: xmlrpclib
Python 3: xmlrpc.client
Gone since: -
Use instead: xmlrpc.client for servers that exist; JSON over HTTP or gRPC for a new one
Servers: gallery_xmlrpc
"""

import datetime
from http.client import HTTPConnection
from typing import Any
from xmlrpc.client import Binary, DateTime, Fault, MultiCall, ServerProxy, Transport

from lab.tour.faulty import SHORT, UNKNOWN_HOST, Failures, breaking_off, silent

URL = "http://gallery_xmlrpc:8000/RPC2"


class Impatient(Transport):
    """A transport with a timeout; the default has none."""

    def make_connection(self, host: Any) -> HTTPConnection:
        connection = super().make_connection(host)
        connection.timeout = SHORT
        return connection


def visit() -> None:
    with ServerProxy(URL) as server:
        print("methods:", server.system.listMethods())  # introspection
        print("help:   ", server.system.methodHelp("add"))
        print("add:    ", server.add(2, 3))
        try:
            server.divide(1, 0)
        except Fault as fault:  # an error in the procedure; an error of HTTP raises ProtocolError
            print("fault:  ", fault.faultCode, fault.faultString)

        calls = MultiCall(server)
        calls.add(1, 2)
        calls.divide(1, 0)
        calls.reverse(Binary(b"abc"))
        results = calls()  # one request for all calls
        print("first of three:", results[0])
        try:
            results[1]
        except Fault as fault:
            print("second of three:", fault.faultCode)
        print("third of three:", results[2].data)

    with ServerProxy(URL, use_builtin_types=True) as server:  # bytes and datetime instead of the module's own classes
        print("binary: ", server.reverse(bytes([0, 1, 255])))
        print("a datetime:", isinstance(server.now(), datetime.datetime))
    print("on the wire a date is", DateTime(datetime.datetime(2026, 11, 25, 2, 30)).value)


def failures() -> Failures:
    server = ServerProxy(URL)
    yield "unknown procedure", lambda: server.subtract(1, 2)
    yield "missing argument", lambda: server.add(1)
    yield "integer beyond 32 bits", lambda: server.add(2**31, 1)
    yield "None, which XML-RPC lacks", lambda: server.add(None, 1)
    yield "unknown path", lambda: ServerProxy("http://gallery_xmlrpc:8000/none").add(1, 2)
    yield "unknown host", lambda: ServerProxy(f"http://{UNKNOWN_HOST}/").add(1, 2)
    yield "closed port", lambda: ServerProxy("http://gallery_xmlrpc:9999/").add(1, 2)
    with breaking_off(b"", b"HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\n\r\n<methodResponse>") as port:
        yield "server closes in mid-transfer", lambda: ServerProxy(f"http://127.0.0.1:{port}/").add(1, 2)
    with silent() as port:
        yield "no reply before the timeout", lambda: ServerProxy(f"http://127.0.0.1:{port}/", Impatient()).add(1, 2)
