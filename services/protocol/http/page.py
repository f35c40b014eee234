"""The page at `/` for browsers: it names the model, and has buttons for its routes and its WebSocket."""

from html import escape

_ROUTES = ("/ping", "/sleep/100", "/burn/10000", "/blob/100", "/stream/3", "/events/3", "/info")

# Nothing is loaded from elsewhere, and no other page can show this one in a frame.
POLICY = (
    b"Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    b"connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'\r\n"
)

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title>%(model)s</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44em; margin: 2em auto; padding: 0 1em }
button { font: inherit; margin: 0 .3em .3em 0 }
pre { background: #8882; padding: .7em; min-height: 6em; overflow: auto }
</style>
<h1>%(model)s</h1>
<p>This model answers here. Try its routes:</p>
<p>%(buttons)s<button data-echo>POST /echo</button></p>
<p>WebSocket on <code>/ws</code>: <input aria-label="message" value="PING"> <button data-send>Send</button></p>
<pre role="log"></pre>
<script>
const log = document.querySelector("pre");
const show = (what, text) => { log.textContent = what + "\\n" + text };
const call = async (path, options) => {
  const start = performance.now();
  try {
    const reply = await fetch(path, options);
    const body = await reply.text();
    show(`${reply.status} ${path} in ${(performance.now() - start).toFixed(1)} ms`, body);
  } catch (error) { show(path, error) }
};
for (const button of document.querySelectorAll("[data-path]")) button.onclick = () => call(button.dataset.path);
document.querySelector("[data-echo]").onclick = () => call("/echo", { method: "POST", body: "Hello" });
let link;
document.querySelector("[data-send]").onclick = () => {
  const send = () => link.send(document.querySelector("input").value);
  if (link && link.readyState === 1) return send();
  link = new WebSocket(location.protocol.replace("http", "ws") + "//" + location.host + "/ws");
  link.onopen = send;
  link.onmessage = (event) => show("WebSocket", event.data);
  link.onclose = (event) => show("WebSocket", "closed with code " + event.code);
};
</script>
</html>
"""


def page(model: str) -> bytes:
    """Return the page of a model, as UTF-8; an empty name is shown as "a server"."""
    buttons = "".join(f'<button data-path="{route}">{route}</button>' for route in _ROUTES)
    return (_PAGE % {"model": escape(model or "a server"), "buttons": buttons}).encode()
