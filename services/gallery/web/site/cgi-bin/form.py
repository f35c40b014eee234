"""Print a line `NAME = VALUE` for each field of a form, and `NAME: FILE, N bytes, TYPE` for each upload.

The server refuses a larger form (413) before it starts this script.
"""

import cgi
import os

form = cgi.FieldStorage(keep_blank_values=True)
lines = [f"{os.environ['REQUEST_METHOD']} {os.environ.get('CONTENT_TYPE', '').partition(';')[0]}".strip()]
# None if the body is not a form.
for field in form.list or []:
    if field.filename:
        size = len(field.value if isinstance(field.value, bytes) else field.value.encode())
        lines.append(f"{field.name}: {field.filename}, {size} bytes, {field.type}")
    else:
        lines.append(f"{field.name} = {field.value}")

print("Content-Type: text/plain; charset=utf-8")
print()
print(*lines, sep="\n")
