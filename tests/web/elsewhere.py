"""Another site, in the same browser as the page: what it tries by itself when it is opened."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ATTEMPTS = """<!doctype html><title>Another site</title>
<iframe name="around" src="{page}/"></iframe>
<iframe name="hidden"></iframe>
<form id="verify" method="post" action="{page}/verify" target="hidden">
<input name="of" value="node01"><input name="token" value="x"></form>
<script>
window.said = [];
document.getElementById("verify").submit();
for (const path of ["/", "/story.json", "/verify?of=node01"])
  fetch("{page}" + path, {{credentials: "include"}})
    .then(() => said.push("read " + path), () => said.push("refused"));
new EventSource("{page}/events", {{withCredentials: true}}).onopen = () => said.push("heard");
const script = document.createElement("script");
script.src = "{page}/page.js";
script.onload = () => said.push("loaded");
script.onerror = () => said.push("refused");
document.body.append(script);
</script>"""


@contextmanager
def other_site(page: str) -> Iterator[str]:
    """The address of a site that attacks the page at ``page`` (its origin)."""
    body = _ATTEMPTS.format(page=page).encode()

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
