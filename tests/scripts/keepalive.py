"""COUNT requests on one connection of Python's own HTTP client.

keepalive.py HOST PORT COUNT TAG: every third is a POST. Prints how many were answered with 200,
how many bodies were right, and the distinct local ports used, which is 1 on one connection.
"""

import hashlib
import http.client
import json
import sys

host, port, count, tag = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
connection = http.client.HTTPConnection(host, port, timeout=10)
ok, right, ports = 0, 0, set()
for i in range(count):
    if i % 3 == 0:
        body = hashlib.sha256(str(i).encode()).hexdigest() * (i % 50)
        connection.request("POST", f"/anything?id={tag}-{i}", body.encode(), {"Content-Type": "text/plain"})
    else:
        body = ""
        connection.request("GET", f"/anything?id={tag}-{i}")
    ports.add(connection.sock.getsockname()[1])
    answer = connection.getresponse()
    value = json.loads(answer.read())
    ok += answer.status == 200
    right += value["data"] == body and value["args"]["id"] == f"{tag}-{i}"
print(json.dumps({"ok": ok, "right": right, "connections": len(ports)}))
