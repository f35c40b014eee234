"""The commands, in the order in which a user needs them. A module is imported when its command is called."""

from typing import NamedTuple


class Entry(NamedTuple):
    """A command: its name, its module in `lab.cli.commands`, and its help in one line."""

    name: str
    module: str
    help: str


COMMANDS = (
    Entry("up", "servers", "Start models and wait until each answers."),
    Entry("down", "servers", "Stop and remove the lab."),
    Entry("ls", "servers", "List the models and their state."),
    Entry("logs", "servers", "Print the logs of models."),
    Entry("call", "servers", "Send one request to a model."),
    Entry("check", "check", "Run the conformance suite."),
    Entry("shell", "servers", "Open a shell inside the lab's network."),
    Entry("new", "servers", "Create the files of a new model."),
    Entry("doctor", "servers", "List what is missing and how to fix it."),
    Entry("clean", "servers", "Remove everything that a lab has left."),
    Entry("load", "load", "Load models, in Locust's web UI or headless."),
    Entry("load-gallery", "load_gallery", "Load the gallery's servers."),
    Entry("load-file", "load_file", "Load a model with your own locustfile."),
    Entry("faults", "faults", "Inject faults under load; count every request."),
    Entry("soak", "soak", "Run mixed and hostile traffic; find leaks."),
    Entry("xray", "xray", "Record who waits for whom, and why."),
    Entry("tour", "tour", "Show network modules against real servers."),
    Entry("bench", "bench", "Compare models: interleaved, with intervals."),
    Entry("compare", "compare", "Compare two runs of bench."),
    Entry("advise", "advise", "Rank models for a load that you describe."),
    Entry("demo", "demo", "Start, check, load and report all models once."),
)
