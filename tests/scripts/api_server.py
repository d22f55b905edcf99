"""An API server of one hostile Namespace beside a normal one, as far as watches go.

    api_server.py PORT EVIL_ROUTES EVIL_ENDPOINTS EXPRESSION SHOP_ADDRESS SHOP_TARGET

It lists and streams what `mirror agent` and `mirror controller` watch, keeps Leases, and takes
writes of a status. What the test wants is asked for by POST:

    /test/shop?state=WORD      the normal Namespace's route marks requests with WORD
    /test/storm?changes=N      so many changes in the hostile Namespace, as fast as they are read;
                               ends with a line of JSON once all are handed over
    /test/put?kind=WORD        the object of the body, of a kind such as `services`
    /test/changes?count=N&rate=R   N changes of routes, R a second: change number I, from 1 on, is object I
                               modulo their count of the body, with I for STATE; returns the times (those
                               of CLOCK_MONOTONIC, in seconds) just before each was handed over
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PORT, ROUTES, ENDPOINTS = (int(arg) for arg in sys.argv[1:4])
EXPRESSION, SHOP_ADDRESS, SHOP_TARGET = sys.argv[4:7]
PER_SLICE = 1000
# Events that a watch's reader may be behind: maxWatchChanSizeWithoutIndex of kube-apiserver.
WATCH_QUEUE = 100
EVIL = "a-hostile"
SHOP = "shop"


class Kind:
    """The objects of a kind and the streams that follow it."""

    def __init__(self):
        self.objects = {}
        self.streams = []
        self.lock = threading.Lock()

    def put(self, object):
        line = event("MODIFIED", object)
        with self.lock:
            meta = object["metadata"]
            self.objects[meta.get("namespace", ""), meta["name"]] = object
            for stream in self.streams:
                stream.append(line)
        return len(line)

    def follow(self, listing):
        with self.lock:
            stream = Stream()
            if listing:
                stream.lines += [event("ADDED", object) for object in self.objects.values()]
                stream.lines.append(bookmark())
            self.streams.append(stream)
            return stream


class Stream:
    """Lines that a watch has not read yet."""

    def __init__(self):
        self.lines = []
        self.ready = threading.Event()

    def append(self, line):
        self.lines.append(line)
        self.ready.set()

    def take(self, most=200):
        """By the thread of the watch alone; lines are only added meanwhile."""
        taken = self.lines[:most]
        del self.lines[:most]
        return taken


VERSION = [100]


def event(kind, object):
    VERSION[0] += 1
    object["metadata"]["resourceVersion"] = str(VERSION[0])
    return (json.dumps({"type": kind, "object": object}) + "\n").encode()


def bookmark():
    meta = {"resourceVersion": str(VERSION[0]), "annotations": {"k8s.io/initial-events-end": "true"}}
    return (json.dumps({"type": "BOOKMARK", "object": {"metadata": meta}}) + "\n").encode()


def meta(namespace, name, at, **more):
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1700000000 + at))
    return {"namespace": namespace, "name": name, "uid": f"{namespace}-{name}", "generation": 1,
            "creationTimestamp": created, **more}


def namespace(name, **labels):
    return {"metadata": {"name": name, "labels": labels}}


def service(namespace, name, address, at):
    return {"metadata": meta(namespace, name, at),
            "spec": {"clusterIP": address, "clusterIPs": [address],
                     "ports": [{"name": "http", "port": 80}]}}


def slice(namespace, service, number, addresses):
    # Each as a Pod of the slice's Namespace, as forged slices would say.
    endpoints = [{"addresses": [ip], "conditions": {"ready": True},
                  "targetRef": {"kind": "Pod", "namespace": namespace, "name": f"pod-{ip}"}}
                 for ip in addresses]
    labels = {"kubernetes.io/service-name": service}
    return {"metadata": meta(namespace, f"{service}-{number}", 0, labels=labels),
            "addressType": "IPv4", "ports": [{"name": "http", "port": 80}], "endpoints": endpoints}


def route(namespace, name, parent, rules, at):
    parents = [{"group": "", "kind": "Service", "name": parent}]
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": meta(namespace, name, at), "spec": {"parentRefs": parents, "rules": rules}}


def evil_rules(number, shadow="bulk"):
    """One rule with an expression at its limit, and a copy to as many endpoints as there are."""
    value = (EXPRESSION + str(number))[-1024:]
    matches = [{"path": {"type": "PathPrefix", "value": f"/{number}"},
                "headers": [{"type": "RegularExpression", "name": f"x-{number}", "value": value}]}]
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": shadow, "port": 80}}}
    return [{"matches": matches, "filters": [mirror],
             "backendRefs": [{"name": "bulk", "port": 80}]}]


def shop_rules(state):
    mark = {"type": "RequestHeaderModifier",
            "requestHeaderModifier": {"set": [{"name": "x-state", "value": state}]}}
    return [{"filters": [mark], "backendRefs": [{"name": "shop", "port": 80}]}]


def bulk(first, count):
    return [f"10.{128 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in range(first, first + count)]


KINDS = {name: Kind() for name in ("services", "endpointslices", "httproutes", "grpcroutes", "referencegrants",
                                   "namespaces", "pods", "nodes", "customresourcedefinitions")}


def populate():
    put = {name: kind.put for name, kind in KINDS.items()}
    put["namespaces"](namespace(EVIL, **{"mirror.dev/endpoint-frontends": "enabled",
                                         "mirror.dev/external-shadows": "enabled"}))
    put["namespaces"](namespace(SHOP))
    put["nodes"]({"metadata": {"name": "node-1"},
                  "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}})
    # A headless Service with all the endpoints, every route of the Namespace attached to it.
    put["services"](service(EVIL, "bulk", "None", 0))
    for at, first in enumerate(range(0, ENDPOINTS, PER_SLICE)):
        addresses = bulk(first, min(PER_SLICE, ENDPOINTS - first))
        put["endpointslices"](slice(EVIL, "bulk", at, addresses))
    for number in range(ROUTES):
        put["httproutes"](route(EVIL, f"r-{number}", "bulk", evil_rules(number), 10 + number // 4))
    put["services"](service(SHOP, "shop", SHOP_ADDRESS, 5000))
    put["endpointslices"](slice(SHOP, "shop", 1, [SHOP_TARGET]))
    put["httproutes"](route(SHOP, "shop", "shop", shop_rules("none"), 6000))


def storm(changes):
    """Changes of every sort, round and round; held back only by how fast they are read."""
    began, kinds = time.time(), KINDS
    for at in range(changes):
        number = at % ROUTES
        if at % 4 < 2:
            kind, object = "httproutes", route(EVIL, f"r-{number}", "bulk", evil_rules(at),
                                               10 + number // 4)
        elif at % 4 == 2:
            ip = f"10.200.{at >> 8 & 255}.{at & 255}"
            kind, object = "services", service(EVIL, f"s-{at % 997}", ip, 20)
            object["metadata"]["labels"] = {"mirror.dev/capture": "enabled"}
        else:
            # The large slices change now and then, small ones always.
            count = PER_SLICE if at % 400 == 3 else 5
            kind, object = "endpointslices", slice(EVIL, "bulk", at % 66, bulk(at % 50000, count))
        kinds[kind].put(object)
        while any(len(s.lines) >= WATCH_QUEUE for s in kinds[kind].streams):
            time.sleep(0.0005)
    while any(s.lines for kind in kinds.values() for s in kind.streams):
        time.sleep(0.01)
    return {"changes": changes, "seconds": time.time() - began}


def changes(objects, count, rate):
    """Changes at a rate, whether they are read or not."""
    texts = [json.dumps(object) for object in objects]
    begin, times = time.monotonic(), []
    for number in range(1, count + 1):
        time.sleep(max(0, begin + number / rate - time.monotonic()))
        object = json.loads(texts[number % len(texts)].replace("STATE", str(number)))
        times.append(time.monotonic())
        KINDS["httproutes"].put(object)
    return times


LEASES = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, object):
        body = json.dumps(object).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def missing(self):
        self.answer(404, {"kind": "Status", "code": 404, "reason": "NotFound", "message": "none"})

    def body(self):
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")

    def do_GET(self):
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        last = url.path.rsplit("/", 1)[-1]
        if last in KINDS and "watch" in query:
            return self.watch(KINDS[last], "sendInitialEvents" in query)
        if url.path in LEASES:
            return self.answer(200, LEASES[url.path])
        self.missing()

    def watch(self, kind, listing):
        stream = kind.follow(listing)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while True:
                lines = stream.take()
                if not lines:
                    stream.ready.wait(1)
                    stream.ready.clear()
                    continue
                data = b"".join(lines)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()
        except OSError:
            pass
        finally:
            with kind.lock:
                kind.streams.remove(stream)
            self.close_connection = True

    def do_POST(self):
        url, body = urlsplit(self.path), self.body()
        query = parse_qs(url.query)
        if url.path == "/test/shop":
            state = query["state"][0]
            KINDS["httproutes"].put(route(SHOP, "shop", "shop", shop_rules(state), 6000))
            return self.answer(200, {})
        if url.path == "/test/storm":
            return self.answer(200, storm(int(query["changes"][0])))
        if url.path == "/test/put":
            KINDS[query["kind"][0]].put(body)
            return self.answer(200, {})
        if url.path == "/test/changes":
            count, rate = int(query["count"][0]), float(query["rate"][0])
            return self.answer(200, changes(body, count, rate))
        if url.path.endswith("/leases"):
            return self.lease(f"{url.path}/{body['metadata']['name']}", body)
        # An Event.
        self.answer(201, body)

    def do_PUT(self):
        self.lease(self.path.split("?")[0], self.body())

    def lease(self, path, body):
        VERSION[0] += 1
        body["metadata"]["resourceVersion"] = str(VERSION[0])
        LEASES[path] = body
        self.answer(200, body)

    def do_PATCH(self):
        """A status: the route has it from now on, as a merge patch does."""
        parts, patch = self.path.split("?")[0].split("/"), self.body()
        found = KINDS["httproutes"].objects.get((parts[5], parts[7])) if len(parts) > 7 else None
        if found is None:
            return self.missing()
        written = {**found, "metadata": dict(found["metadata"]), "status": patch.get("status", {})}
        KINDS["httproutes"].put(written)
        self.answer(200, written)


populate()
print("populated", flush=True)
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
