"""Sends fixed bytes and prints what comes back: send.py HOST PORT FILE.

FILE has a JSON list of texts, one for each connection; the answers are printed in that order.
"""

import json
import socket
import sys

host, port = sys.argv[1], int(sys.argv[2])
answers = []
for text in json.load(open(sys.argv[3])):
    with socket.create_connection((host, port), timeout=10) as stream:
        stream.sendall(text.encode("latin-1"))
        stream.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := stream.recv(65536):
            answer += piece
    answers.append(answer.decode("latin-1"))
print(json.dumps(answers))
