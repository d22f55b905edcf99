"""A forward proxy of HTTP/1.1, as a server of our own would be none: forward_proxy.py PORT LOG.

It takes absolute form and CONNECT, and answers 400 to anything else. LOG gets each request line.
"""

import http.client
import http.server
import select
import socket
import sys
import urllib.parse

LOG = open(sys.argv[2], "a", buffering=1)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        LOG.write(self.requestline + "\n")
        url = urllib.parse.urlsplit(self.path)
        if url.scheme != "http" or self.headers["Host"] != url.netloc:
            return self.send_error(400)
        origin = http.client.HTTPConnection(url.netloc, timeout=5)
        origin.request("GET", url.path or "/", headers={"Connection": "close"})
        response = origin.getresponse()
        body = response.read()
        self.send_response(response.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self):
        LOG.write(self.requestline + "\n")
        host, port = self.path.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=5) as origin:
            self.send_response(200, "Connection established")
            self.end_headers()
            self.relay(self.connection, origin)
        self.close_connection = True

    def relay(self, one, other):
        while True:
            for ready in select.select([one, other], [], [], 5)[0] or [None]:
                data = ready.recv(65536) if ready else b""
                if not data:
                    return
                (other if ready is one else one).sendall(data)


http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
