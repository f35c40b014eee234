"""The gallery's tour: each network module of the classic table at work, and what it says on the wire.

An exhibit (`exhibits/`) is a client as anybody would write it. `collection` finds it, `stage` runs it inside the lab's
network while `recorder` notes its `dialogue`, and `lab.report` shows all three: code, output, wire.
"""
