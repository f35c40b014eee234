"""What the scripts of the workloads send, expect, and wait for."""

from tests.support.scripts import run_script

NOTED = """
import json
from contextlib import contextmanager
from types import SimpleNamespace as Stub
from loadtests import scripts as module

done = []

class Client:
    @contextmanager
    def exchange(self):
        done.append("begin")
        yield
        done.append("end")

    def send(self, data):
        done.append(["send", data.decode()])

    def expect(self, reply):
        done.append(["expect", len(reply)])
        replies.append(reply)

    def call(self, request, reply):
        done.append([request.decode(), reply.decode()])

    def disconnect(self):
        done.append("disconnect")

replies = []
module.gevent = Stub(sleep=lambda seconds: done.append(seconds))
# The mean of an exponential distribution is the inverse of its rate.
module.random = Stub(expovariate=lambda rate: round(1 / rate, 6))
"""


def test_thinking_user_pauses_after_each_request_and_quits() -> None:
    told = run_script(f"{NOTED}\nmodule.think(Client())\nprint('TOLD', json.dumps(done))")
    echoes: list[list[str]] = [
        [f"*2\r\n$4\r\nECHO\r\n$1\r\n{number}\r\n", f"$1\r\n{number}\r\n"] for number in range(5)
    ]
    steps: list[object] = [step for echo in echoes for step in (echo, 0.05)]
    assert told == [*steps, ["*1\r\n$4\r\nQUIT\r\n", "+OK\r\n"], "disconnect"]


def test_slow_reader_pauses_after_each_piece_of_one_reply() -> None:
    told = run_script(
        f"{NOTED}\nmodule.read_slowly(Client())\nwhole = b''.join(replies)"
        "\nprint('TOLD', json.dumps([done, whole[:9].decode(), whole[-2:].decode(), len(whole)]))"
    )
    # A head of nine bytes, 256 KiB, and the end of the line.
    pieces = [16384] * 16 + [11]
    steps: list[object] = ["begin", ["send", "*2\r\n$4\r\nBLOB\r\n$6\r\n262144\r\n"]]
    steps += [step for size in pieces for step in (["expect", size], 0.01)]
    assert told == [[*steps, "end"], "$262144\r\n", "\r\n", 262155]
