"""Scripts that act on the processes of a model from another process; they need only the standard library.

The first argument is the pid at the top of the model's process tree; in a container, that of its init, which is left
out.
"""

PROCESS_TREE = """
import json, os, resource, signal, sys
top = int(sys.argv[1])
parents = {}
for name in filter(str.isdigit, os.listdir("/proc")):
    try:
        # The name of any process of the machine may be no UTF-8: the kernel cuts it at 15 bytes.
        rest = open(f"/proc/{name}/stat", errors="replace").read().rpartition(")")[2].split()
    except OSError:
        continue
    if rest[0] != "Z":
        parents[int(name)] = int(rest[1])
tree = [] if top == 1 else [top]
def add_descendants(pid):
    for child in (each for each, parent in parents.items() if parent == pid):
        tree.append(child)
        add_descendants(child)
add_descendants(top)
"""

# Print how many worker processes there are; with "kill", kill the first.
KILL_WORKER = (
    PROCESS_TREE
    + """
workers = tree[1:]
print(len(workers))
if workers and "kill" in sys.argv:
    os.kill(workers[0], signal.SIGKILL)
"""
)

# Print the limits of each process as [pid, soft, hard]; unless `more` is negative, set the soft limit to the current
# use plus `more`.
LIMIT = (
    PROCESS_TREE
    + """
which, more = getattr(resource, sys.argv[2]), int(sys.argv[3])
before = []
for pid in tree:
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

# Restore the soft limit, also of children that were created meanwhile and inherited the lowered one.
UNLIMIT = (
    PROCESS_TREE
    + """
which, soft = getattr(resource, sys.argv[2]), int(sys.argv[3])
for pid in tree:
    try:
        resource.prlimit(pid, which, (soft, resource.prlimit(pid, which)[1]))
    except ProcessLookupError:
        continue
"""
)
