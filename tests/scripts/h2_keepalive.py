"""A client whose keepalive is PINGs, as gRPC's: h2_keepalive.py HOST PORT TAG SECONDS.

It has a stream open and sends a PING every second; without an acknowledgement for two it gives the
connection up. Says "open" when the stream has begun; prints a JSON object at the end, after SECONDS at
most: how many PINGs were acknowledged, and for how long none was if it gave up.
"""

import json
import sys
import time

import h2.events

from h2peer import Peer

host, port, tag, seconds = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])


class Client(Peer):
    acknowledged = 0

    def event(self, event):
        self.acknowledged += isinstance(event, h2.events.PingAckReceived)
        super().event(event)


client = Client(host, port)
stream = client.open("GET", f"/open?id={tag}")
client.flush()
client.receive(lambda: client.streams[stream].body == b"open")
print("open", flush=True)
until, given_up = time.monotonic() + seconds, None
while time.monotonic() < until and given_up is None:
    sent, before = time.monotonic(), client.acknowledged
    client.h2.ping(b"liveness")
    client.flush()
    try:
        client.receive(lambda: client.acknowledged > before, timeout=2)
        time.sleep(max(0, sent + 1 - time.monotonic()))
    except TimeoutError:
        given_up = time.monotonic() - sent
    except ConnectionError as error:
        given_up = str(error)
print(json.dumps({"acknowledged": client.acknowledged, "given_up": given_up}))
