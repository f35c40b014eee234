"""What is done to the processes of a model, from beside them: a script of the standard library alone.

Its first argument is the pid under which the model's processes are; in a container, that of its init.
"""

FAMILY = """
import json, os, resource, signal, sys
top = int(sys.argv[1])
parents = {}
for name in filter(str.isdigit, os.listdir("/proc")):
    try:
        rest = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()
    except OSError:
        continue
    if rest[0] != "Z":
        parents[int(name)] = int(rest[1])
family = [] if top == 1 else [top]
def below(pid):
    for child in (each for each, parent in parents.items() if parent == pid):
        family.append(child)
        below(child)
below(top)
"""

# Kill one that the first has made.
KILL_WORKER = (
    FAMILY
    + """
workers = family[1:]
print(len(workers))
if workers and "kill" in sys.argv:
    os.kill(workers[0], signal.SIGKILL)
"""
)

# What each may have of something, as [pid, soft, hard], before it is changed: to what it has now and so much more.
LIMIT = (
    FAMILY
    + """
which, more = getattr(resource, sys.argv[2]), int(sys.argv[3])
before = []
for pid in family:
    try:
        soft, hard = resource.prlimit(pid, which)
        before.append([pid, soft, hard])
        if sys.argv[2] == "RLIMIT_NOFILE":
            used = len(os.listdir(f"/proc/{pid}/fd"))
        else:
            used = int(open(f"/proc/{pid}/statm").read().split()[0]) * resource.getpagesize()
        if more >= 0:
            resource.prlimit(pid, which, (used + more, hard))
    except (ProcessLookupError, FileNotFoundError):
        continue
print(json.dumps(before))
"""
)

# Back to the soft limit that they had; children that were made meanwhile have inherited the lowered one.
UNLIMIT = (
    FAMILY
    + """
which, soft = getattr(resource, sys.argv[2]), int(sys.argv[3])
for pid in family:
    try:
        resource.prlimit(pid, which, (soft, resource.prlimit(pid, which)[1]))
    except ProcessLookupError:
        continue
"""
)
