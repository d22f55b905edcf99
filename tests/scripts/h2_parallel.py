"""COUNT requests at once on one HTTP/2 connection: h2_parallel.py HOST PORT COUNT PATH [BODY].

PATH may hold {}, the request's number; with a BODY they are POSTs. Prints a JSON object: how often each status came, how many
streams were reset, and the connection's GOAWAY.
"""

import collections
import json
import sys

from h2peer import Peer

host, port, count, path = sys.argv[1:5]
body = "".join(sys.argv[5:]).encode()


def ask(number):
    if not body:
        return peer.open("GET", path.format(number))
    stream = peer.open("POST", path.format(number), end=False)
    peer.h2.send_data(stream, body, end_stream=True)
    return stream


peer = Peer(host, port)
# A first response: the server's settings have arrived.
peer.get(path.format("first"))
numbers = [ask(i) for i in range(int(count))]
peer.wait(*numbers)
streams = [peer.streams[number] for number in numbers]
statuses = collections.Counter(str(stream.status) for stream in streams)
resets = collections.Counter(stream.reset for stream in streams if stream.reset)
print(json.dumps({"statuses": statuses, "resets": resets, "goaway": peer.goaway}))
