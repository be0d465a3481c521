"""Which requests reach the page: those for its own names, of a bounded size, to open routes."""

import re
import sys
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from als.files import printable

LOCAL = ("localhost", "127.0.0.1", "::1")
MAX_FILE_SIZE = 40 * 2**20  # bytes of a photo or a checkpoint
MAX_UPLOAD = 200 * 2**20  # bytes of the files that are uploaded together
MAX_BODY = 8 * 2**20  # bytes of any other request; the largest is the canvas's picture
AUTHORITY = re.compile(r"\[?([a-z0-9.:_-]+?)\]?(?::[0-9]{1,5})?", re.IGNORECASE)
# Of Gradio and not of the page: they write the tab's state to the disk, fetch from other servers,
# run programs on a recording.
CLOSED = re.compile(
    r"/*gradio_api/+(deep_link|proxy=|process_recording|file=\s*https?:|vibe|undo-vibe|run-history)",
    re.IGNORECASE,
)


class Gate:
    """ASGI middleware that answers 4xx to what is not for this page.

    A name that an attacker points at this machine (DNS rebinding) must not reach it, so Host,
    X-Forwarded-Host and Origin have to be localhost or one of `names`. Pages of other origins
    get no leave to read an answer: the Origin is not passed on.

    has_room: whether another upload fits on the disk.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], has_room: Callable[[], Awaitable[bool]]):
        self.app, self.has_room = app, has_room
        self.names = {name.strip("[]").rstrip(".").lower() for name in (*LOCAL, *names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refused := await self._refused(scope)):
            await refused(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except Exception as error:  # a request that Gradio does not know; it has answered 500
            place = printable(scope.get("path", scope["type"]))
            print(f"als: {place}: {type(error).__name__}: {error!r:.200}", file=sys.stderr)

    async def _refused(self, scope: Scope) -> PlainTextResponse | None:
        headers, path = Headers(scope=scope), unquote(scope["path"])
        hosts = [*headers.getlist("host"), *headers.getlist("x-forwarded-host")]
        if not headers.get("host") or not all(map(self._is_ours, ",".join(hosts).split(","))):
            said = "This page does not answer to that name; start it with --allow-host NAME."
            return PlainTextResponse(said, 400)
        urls = [*headers.getlist("origin"), *headers.getlist("x-gradio-server")]
        if not all(self._is_ours(re.sub(r"^https?://|/$", "", url)) for url in urls):
            return PlainTextResponse("This page does not answer to other sites.", 403)
        if CLOSED.match(path):
            return PlainTextResponse("There is nothing here.", 404)
        if headers.get("transfer-encoding"):
            return PlainTextResponse("Send the content with its length.", 411)
        is_upload = path.rstrip("/").endswith("/upload")
        most = MAX_UPLOAD + 2**20 if is_upload else MAX_BODY
        if int(headers.get("content-length", 0)) > most:
            return PlainTextResponse(f"Too large: at most {most // 2**20} MB.", 413)
        if is_upload and not await self.has_room():
            said = "There is no room for another file now; try again in a minute."
            return PlainTextResponse(said, 503)
        # Else Gradio would let pages of other ports of localhost in, with credentials.
        for name in ("origin", "x-gradio-server"):
            del MutableHeaders(scope=scope)[name]
        return None

    def _is_ours(self, authority: str) -> bool:
        found = AUTHORITY.fullmatch(authority.strip())
        return found is not None and found[1].rstrip(".").lower() in self.names
