"""Load with an id in every request: load.py HOST PORT TAG COUNT THREADS RATE POSTS [CHECK].

Each thread keeps its connection as long as the server does, and sends its share of COUNT, RATE
requests per second over all threads (0: as fast as it goes). POSTS is the share of POSTs in
percent; their bodies are counted or chunked, 0 to 20,000 bytes. A connection that a server closes
is no error of the client's: the id goes to `closed`, and is not sent again. Everything else but a
200 is. Prints {"ok": [ids], "closed": [ids], "errors": [texts], "connections": count}.
"""

import http.client
import json
import sys
import threading
import time

host, port, tag, count, threads = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
rate, posts = float(sys.argv[6]), int(sys.argv[7])
result = {"ok": [], "closed": [], "errors": [], "connections": 0}
start = time.monotonic()
CLOSED = (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected, http.client.IncompleteRead)


def send(connection, i, ident):
    target = f"/anything?id={ident}"
    if i * 37 % 100 >= posts:
        connection.request("GET", target)
    else:
        body = bytes([97 + i % 26]) * (i * 7919 % 20_000)
        pieces = (body[at : at + 3000] for at in range(0, len(body), 3000))
        chunked = i % 2 == 1
        connection.request("POST", target, pieces if chunked else body, encode_chunked=chunked,
                           headers={"Transfer-Encoding": "chunked"} if chunked else {})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def work(first):
    connection, used = http.client.HTTPConnection(host, port, timeout=20), False
    for i in range(first, count, threads):
        if rate:
            time.sleep(max(0.0, start + i / rate - time.monotonic()))
        ident = f"{tag}-{i}"
        try:
            if connection.sock is None:
                result["connections"] += 1
            status = send(connection, i, ident)
            if status == 200:
                result["ok"].append(ident)
            else:
                result["errors"].append(f"{ident}: {status}")
        except CLOSED:
            result["closed"].append(ident)
            connection.close()
        except Exception as error:
            result["errors"].append(f"{ident}: {error!r}")
            connection.close()


workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(json.dumps(result))
