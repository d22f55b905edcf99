"""A server for plain CONNECT over HTTP/1.1: connect_server.py PORT LOG.

It agrees to every tunnel but those to port 1, writes down what was asked for, and turns the bytes
to upper case.
"""

import json
import socketserver
import sys


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        line = self.rfile.readline().decode().strip()
        fields = []
        while field := self.rfile.readline().decode().strip():
            fields.append(field)
        with open(sys.argv[2], "a") as log:
            log.write(json.dumps({"line": line, "fields": fields}) + "\n")
        if line.split(" ")[1].endswith(":1"):
            self.wfile.write(b"HTTP/1.1 403 No\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")
            return
        self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\nhello ")
        while data := self.rfile.read1(65536):
            self.wfile.write(data.upper())
        self.wfile.write(b" bye")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
