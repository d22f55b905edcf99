//! An API server in memory: kinds with objects, streams that stay open. It needs no socket, so
//! that the tests run on tokio's paused clock.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use ::kube::{Client, client::Body};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;

type LineSender = mpsc::UnboundedSender<String>;

/// A kind as the server has it; None: it knows no such kind.
type Objects = Option<Vec<Value>>;

#[derive(Clone, Default)]
pub(super) struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    kinds: BTreeMap<&'static str, Objects>,
    streams: BTreeMap<&'static str, Vec<LineSender>>,
    version: u32,
}

const KINDS: [&str; 11] = [
    "services",
    "endpointslices",
    "httproutes.gateway.networking.k8s.io",
    "grpcroutes.gateway.networking.k8s.io",
    "referencegrants.gateway.networking.k8s.io",
    "httproutes",
    "grpcroutes",
    "referencegrants",
    "namespaces",
    "pods",
    "nodes",
];

impl Server {
    /// Every kind exists; there are no objects but the three CRDs.
    pub(super) fn new() -> Self {
        let server = Self::default();
        for kind in KINDS {
            server.set(kind, Some(Vec::new()));
        }
        for kind in ["HTTPRoute", "GRPCRoute", "ReferenceGrant"] {
            server.install(kind);
        }
        server
    }

    pub(super) fn install(&self, kind: &str) {
        let (name, version) = match kind {
            "HTTPRoute" => ("httproutes.gateway.networking.k8s.io", "v1"),
            "GRPCRoute" => ("grpcroutes.gateway.networking.k8s.io", "v1"),
            _ => ("referencegrants.gateway.networking.k8s.io", "v1beta1"),
        };
        self.apply(
            name,
            json!({"metadata": {"name": name}, "spec": {"names": {"kind": kind},
            "versions": [{"name": version, "served": true}]}}),
        );
    }

    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let respond = server.respond(&request.uri().to_string());
            async { Ok::<_, Infallible>(respond) }
        });
        Client::new(service, "default")
    }

    /// Replaces all objects of a kind, and cuts its streams.
    pub(super) fn set(&self, kind: &'static str, objects: Objects) {
        let mut state = self.state();
        state.kinds.insert(kind, objects);
        state.streams.remove(kind);
    }

    /// Adds an object and sends the event.
    pub(super) fn apply(&self, kind: &'static str, object: Value) {
        self.send(kind, "MODIFIED", &object);
        let mut state = self.state();
        if let Some(Some(objects)) = state.kinds.get_mut(kind) {
            objects.retain(|old| old["metadata"]["name"] != object["metadata"]["name"]);
            objects.push(object);
        }
    }

    pub(super) fn delete(&self, kind: &'static str, name: &str) {
        let object = json!({"metadata": {"namespace": "default", "name": name}});
        let mut state = self.state();
        if let Some(Some(objects)) = state.kinds.get_mut(kind) {
            objects.retain(|old| old["metadata"]["name"] != name);
        }
        drop(state);
        self.send(kind, "DELETED", &object);
    }

    fn send(&self, kind: &'static str, event: &str, object: &Value) {
        let mut state = self.state();
        state.version += 1;
        let line = format!("{}\n", json!({"type": event, "object": object}));
        for stream in state.streams.entry(kind).or_default() {
            let _ = stream.send(line.clone());
        }
    }

    fn respond(&self, uri: &str) -> Response<Stream> {
        let (path, query) = uri.split_once('?').unwrap();
        let named = |kind: &&str| match query.split("metadata.name%3D").nth(1) {
            Some(name) => name.split('&').next() == Some(*kind),
            None => path.ends_with(&format!("/{kind}")),
        };
        let kind = KINDS.into_iter().find(|kind| named(kind)).unwrap();
        let mut state = self.state();
        let Some(Some(objects)) = state.kinds.get(kind).cloned() else {
            let mut respond = Response::new(Stream::of("{}"));
            *respond.status_mut() = StatusCode::NOT_FOUND;
            return respond;
        };
        let (sender, stream) = Stream::open();
        if query.contains("sendInitialEvents=true") {
            for object in objects {
                let _ = sender.send(format!("{}\n", json!({"type": "ADDED", "object": object})));
            }
            let version = state.version.to_string();
            let end = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version,
                "annotations": {"k8s.io/initial-events-end": "true"}}}});
            let _ = sender.send(format!("{end}\n"));
        }
        state.streams.entry(kind).or_default().push(sender);
        Response::new(stream)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

struct Stream(mpsc::UnboundedReceiver<String>);

impl Stream {
    fn open() -> (LineSender, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Self(receiver))
    }

    fn of(text: &str) -> Self {
        let (sender, stream) = Self::open();
        let _ = sender.send(text.to_owned());
        stream
    }
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line.into()))))
    }
}
