"""Names of the environment variables that the lab and its load generator share.

The models read their own (services/protocol/limits.py). So does `loadtests.sockets`, which imports nothing of the lab.
"""

# Which lab: the project's name, where its models run, and its catalogue.
ENV_PROJECT = "LAB_PROJECT"
ENV_BACKEND = "LAB_BACKEND"
ENV_COMPOSE_FILE = "LAB_COMPOSE_FILE"

# The folder in which servers write what they do, for `lab xray`. `{model}` stands for a server's name.
ENV_XRAY = "LAB_XRAY"

# The addresses of the models, as rows of JSON, for the load generator and every other client.
ENV_TARGETS = "LAB_TARGETS"

# The folder of a locustfile on this machine, which compose.yaml mounts for the load generator.
ENV_LOCUSTFILES = "LAB_LOCUSTFILES"

# `stdin`: the process ends when its stdin does.
ENV_LIFELINE = "LAB_LIFELINE"

# The cores of the load generator, as `0,1`.
ENV_GENERATOR_CORES = "LAB_GENERATOR_CORES"

# `stdin`: the load generator reads telemetry there. And the faults that its form offers, separated by commas.
ENV_TELEMETRY = "LAB_TELEMETRY"
ENV_FAULTS = "LAB_FAULTS"

# The web UI: its port on this machine, its login as USER:PASSWORD, and for a proxy in front of it the origins
# (`https://lab.example.org https://lab.example.org:8443`, separated by blanks or commas) and the path (`/load`).
ENV_UI_PORT = "LAB_UI_PORT"
ENV_UI_LOGIN = "LAB_UI_LOGIN"
ENV_UI_ORIGINS = "LAB_UI_ORIGINS"
ENV_UI_BASE_PATH = "LAB_UI_BASE_PATH"
