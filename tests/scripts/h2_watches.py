"""Streams that stay open, and a request beside them: h2_watches.py HOST PORT COUNT TAG.

COUNT responses of h2_server.py are begun on one connection, 100 at once, and never end.
Prints a JSON object: how many have begun, the status of a request beside them and the seconds that it took.
"""

import json
import sys
import time

from h2peer import Peer

host, port, count, tag = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
peer = Peer(host, port)
peer.get(f"/echo?id={tag}-first")
numbers = []
for i in range(count):
    numbers.append(peer.open("GET", f"/open?id={tag}-{i}"))
    if len(numbers) % 100 == 0 or len(numbers) == count:
        peer.flush()
        peer.receive(lambda: all(peer.streams[number].body == b"open" for number in numbers[-100:]))
begun = sum(peer.streams[number].body == b"open" for number in numbers)
begin = time.monotonic()
beside = peer.get(f"/echo?id={tag}-beside")
print(json.dumps({"begun": begun, "beside": beside.status, "seconds": time.monotonic() - begin}))
