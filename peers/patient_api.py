"""A patient API that does as a test says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class ScriptedPatientApi:
    """`script(handler)` answers each request; `asked` are the paths."""

    def __init__(self) -> None:
        self.script: Callable[[BaseHTTPRequestHandler], None] = self.knows_nobody
        self.asked: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.asked.append(self.path)
                api.script(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True  # one that hangs is no longer waited for at the end
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @staticmethod
    def knows_nobody(handler: BaseHTTPRequestHandler) -> None:
        handler.send_error(404)

    @staticmethod
    def fails(handler: BaseHTTPRequestHandler) -> None:
        handler.send_error(500)

    @staticmethod
    def hangs(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(1.5)

    @staticmethod
    def redirects_to(url: str) -> Callable[[BaseHTTPRequestHandler], None]:
        def script(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(302)
            handler.send_header("Location", url)
            handler.end_headers()

        return script

    @staticmethod
    def answers(**members: str) -> Callable[[BaseHTTPRequestHandler], None]:
        def script(handler: BaseHTTPRequestHandler) -> None:
            body = json.dumps(members).encode()
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        return script
