"""Servers that do not speak HTTP, for both families: opaque_server.py MODE PORT.

first: greets, then answers each line in capitals until QUIT. half: reads to the end of the
client's half, then answers with the length and hash of all that it read.
"""

import hashlib
import socket
import socketserver
import sys


class First(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 ready\r\n")
        for line in self.rfile:
            if line.strip() == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 " + line.upper())


class Half(socketserver.StreamRequestHandler):
    def handle(self):
        data = self.rfile.read()
        self.wfile.write(f"{len(data)} {hashlib.sha256(data).hexdigest()}".encode())


class Server(socketserver.ThreadingTCPServer):
    # Of IPv4 as well: clients of both reach it.
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True


handler = {"first": First, "half": Half}[sys.argv[1]]
Server(("::", int(sys.argv[2])), handler).serve_forever()
