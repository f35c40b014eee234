"""Says what a form has sent: a line `NAME = VALUE` for each field, `NAME: FILE, N bytes, TYPE` for each upload.

How large a form may be is not this script's to say: the server refuses what is larger before it starts (413).
"""

import cgi
import os

form = cgi.FieldStorage(keep_blank_values=True)
lines = [f"{os.environ['REQUEST_METHOD']} {os.environ.get('CONTENT_TYPE', '').partition(';')[0]}".strip()]
# None where what was sent is no form.
for field in form.list or []:
    if field.filename:
        size = len(field.value if isinstance(field.value, bytes) else field.value.encode())
        lines.append(f"{field.name}: {field.filename}, {size} bytes, {field.type}")
    else:
        lines.append(f"{field.name} = {field.value}")

print("Content-Type: text/plain; charset=utf-8")
print()
print(*lines, sep="\n")
