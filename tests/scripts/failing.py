"""A server (Python's http.server) that fails each request a number of times before it responds with 200.

    failing.py PORT LOG

The query says how: id=ID&times=N&with=STATUS, or with=close (the connection ends without a response) or
with=wait (no response for 30 s). Each response is after=SECONDS late. A line of JSON for each request goes to
LOG: id, method, and the length and SHA-256 of the body.
"""

import collections
import hashlib
import http.server
import json
import sys
import threading
import time
import urllib.parse

port, log = int(sys.argv[1]), open(sys.argv[2], "a", buffering=1)
lock, seen = threading.Lock(), collections.Counter()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def respond(self):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        digest = hashlib.sha256(body).hexdigest()
        line = {"id": query["id"], "method": self.command, "length": len(body), "sha256": digest}
        with lock:
            seen[query["id"]] += 1
            attempt = seen[query["id"]]
            log.write(json.dumps(line) + "\n")
        status = 200
        time.sleep(float(query.get("after", 0)))
        if attempt <= int(query.get("times", 0)):
            if query["with"] == "close":
                self.close_connection = True
                return
            if query["with"] == "wait":
                time.sleep(30)
                self.close_connection = True
                return
            status = int(query["with"])
        text = f"attempt {attempt}".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = respond

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    # Room for clients that connect at once.
    request_queue_size = 128
    daemon_threads = True


Server(("0.0.0.0", port), Handler).serve_forever()
