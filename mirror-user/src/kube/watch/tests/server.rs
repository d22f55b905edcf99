//! An API server that follows a script: responses in order, each to one request. It needs no
//! socket, so that the tests run on tokio's paused clock.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use ::kube::{Client, client::Body};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use serde_json::json;
use tokio::time::Instant;

/// One response of the script.
#[derive(Clone, Debug)]
pub(super) struct ScriptedResponse {
    status: u16,
    parts: VecDeque<String>,
    end: ResponseEnd,
}

/// How a response ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseEnd {
    Whole,
    Broken,
    Never,
}

impl ScriptedResponse {
    pub(super) fn lines(lines: &[String], end: ResponseEnd) -> Self {
        Self { status: 200, parts: lines.iter().map(|line| format!("{line}\n")).collect(), end }
    }

    /// Bytes as they are, split where the array is.
    pub(super) fn bytes(parts: &[&str], end: ResponseEnd) -> Self {
        Self { status: 200, parts: parts.iter().map(ToString::to_string).collect(), end }
    }

    pub(super) fn status(code: u16) -> Self {
        let body = json!({"kind": "Status", "code": code, "message": format!("scripted {code}")});
        Self { status: code, parts: [body.to_string()].into(), end: ResponseEnd::Whole }
    }

    pub(super) fn page(names: &[&str], version: u32, after: Option<&str>) -> Self {
        let items: Vec<_> = names.iter().map(|name| object(name, 1)).collect();
        let items = if items.is_empty() { json!(null) } else { json!(items) };
        let body = json!({
            "kind": "ThingList",
            "metadata": {"resourceVersion": version.to_string(), "continue": after},
            "items": items,
        });
        Self { status: 200, parts: [body.to_string()].into(), end: ResponseEnd::Whole }
    }
}

pub(super) fn object(name: &str, version: u32) -> serde_json::Value {
    let version = version.to_string();
    json!({"metadata": {"namespace": "default", "name": name, "resourceVersion": version},
        "endpoints": null})
}

pub(super) fn line(kind: &str, name: &str, version: u32) -> String {
    json!({"type": kind, "object": object(name, version)}).to_string()
}

pub(super) fn bookmark(version: u32, ends_list: bool) -> String {
    let note = if ends_list { json!({"k8s.io/initial-events-end": "true"}) } else { json!({}) };
    json!({"type": "BOOKMARK", "object":
        {"metadata": {"resourceVersion": version.to_string(), "annotations": note}}})
    .to_string()
}

pub(super) fn error(code: u16) -> String {
    json!({"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "scripted"}})
        .to_string()
}

/// What was asked, and when.
#[derive(Clone, Default)]
pub(super) struct RequestLog(Arc<Mutex<Vec<(Instant, String)>>>);

impl RequestLog {
    pub(super) fn all(&self) -> Vec<(Instant, String)> {
        self.0.lock().unwrap().clone()
    }

    /// In short: `list`, `stream`, or `watch N`.
    pub(super) fn kinds(&self) -> Vec<String> {
        let kind = |query: &str| {
            let field = |name| {
                let mut fields = query.split('&');
                fields.find_map(|field| field.strip_prefix(name).map(String::from))
            };
            match (field("sendInitialEvents="), field("resourceVersion="), field("continue=")) {
                (Some(_), ..) => "stream".into(),
                (None, Some(version), _) => format!("watch {version}"),
                (None, None, Some(token)) => format!("list {token}"),
                (None, None, None) => "list".into(),
            }
        };
        self.all().iter().map(|(_, uri)| kind(uri.split_once('?').unwrap().1)).collect()
    }
}

/// A client of a server that sends these responses; after the last one it never responds.
pub(super) fn client(script: impl IntoIterator<Item = ScriptedResponse>) -> (Client, RequestLog) {
    let mut script: VecDeque<_> = script.into_iter().collect();
    let last = move || script.pop_front();
    client_of(last)
}

pub(super) fn client_of(
    respond: impl FnMut() -> Option<ScriptedResponse> + Send + 'static,
) -> (Client, RequestLog) {
    let requests = RequestLog::default();
    let (respond, notes) = (Arc::new(Mutex::new(respond)), requests.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        notes.0.lock().unwrap().push((Instant::now(), request.uri().to_string()));
        let respond = (respond.lock().unwrap())();
        async move {
            let Some(respond) = respond else { return std::future::pending().await };
            let status = respond.status;
            let mut response = Response::new(respond);
            *response.status_mut() = status.try_into().unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    (Client::new(service, "default"), requests)
}

impl http_body::Body for ScriptedResponse {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match (self.parts.pop_front(), self.end) {
            (Some(part), _) => Poll::Ready(Some(Ok(Frame::data(part.into())))),
            (None, ResponseEnd::Whole) => Poll::Ready(None),
            (None, ResponseEnd::Broken) => {
                Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())))
            }
            (None, ResponseEnd::Never) => Poll::Pending,
        }
    }
}
