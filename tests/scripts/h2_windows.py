"""Streams that stop, beside one that does not, on one connection.

h2_windows.py HOST PORT TAG SECONDS: eight answers of 16 MiB each are asked for and not read beyond
their first window; eight uploads go to /unread, whose server does not read on either, as much as
is taken. Then 200 requests are answered, and the connection is kept for SECONDS, so that the memory
of what is between can be looked at. Prints a JSON object.
"""

import json
import sys
import time

from h2peer import Peer

host, port, tag, seconds = sys.argv[1:]
peer = Peer(host, port)
peer.get(f"/echo?id={tag}-first")
downloads = [peer.open("GET", f"/bytes/16777216?id={tag}-down-{i}") for i in range(8)]
peer.unread.update(downloads)
peer.flush()
uploads = [peer.open("POST", f"/unread?id={tag}-up-{i}", end=False) for i in range(8)]
peer.flush()
sent = 0
for number in uploads:
    # As much as is taken, up to 16 MiB: until the window was shut for a while.
    for _ in range(1024):
        try:
            peer.receive(lambda: peer.h2.local_flow_control_window(number) > 0, timeout=0.2)
        except TimeoutError:
            break
        room = min(peer.h2.local_flow_control_window(number), 16384)
        peer.h2.send_data(number, bytes(room))
        sent += room
        peer.flush()
begin = time.monotonic()
answered = sum(peer.get(f"/echo?id={tag}-{i}").status == 200 for i in range(200))
took = time.monotonic() - begin
time.sleep(float(seconds))
got = sum(len(peer.streams[number].body) for number in downloads)
print(json.dumps({"answered": answered, "seconds": took, "sent": sent, "got": got}))
