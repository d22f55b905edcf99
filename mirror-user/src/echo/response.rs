//! Responses of `mirror echo`, in httpbin's form.

use std::{net::SocketAddr, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts,
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::{
    Server,
    body::EchoBody,
    fault::Fault,
    log::{RequestRecord, text},
};

/// Uploads up to this many bytes are shown in the response; of longer ones only length and hash.
const SHOWN: usize = 64 * 1024;

/// Reads the request whole, unless the fault is an early response, and responds.
pub(super) async fn respond(
    request: Request<Incoming>,
    peer: SocketAddr,
    server: &Server,
) -> Response<EchoBody> {
    let (mut head, body) = request.into_parts();
    if head.version == Version::HTTP_2 {
        to_origin_form(&mut head);
    }
    let record = server.log.record(peer, &head);
    if server.fault == Some(Fault::EarlyAnswer) {
        server.log.access(peer, &head, 413, 0);
        return early();
    }
    let Some(upload) = read(body, record).await else {
        return whole(StatusCode::BAD_REQUEST, "text/plain", "the body ended early\n".into());
    };
    match server.fault {
        Some(Fault::AnswerNever) => std::future::pending().await,
        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
        _ => {}
    }
    let mut response = route(&head, peer, &upload).await;
    if server.fault == Some(Fault::CloseMidAnswer) {
        response = response.map(EchoBody::broken);
    }
    server.log.access(peer, &head, response.status().as_u16(), response.body().len());
    response
}

/// HTTP/2 has the host in the target; here it is moved to Host, as in HTTP/1.
fn to_origin_form(head: &mut Parts) {
    let host = head.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    if let Some(host) = host {
        head.headers.insert(header::HOST, host);
    }
    if let Some(target) = head.uri.path_and_query().cloned() {
        head.uri = target.into();
    }
}

fn early() -> Response<EchoBody> {
    let mut response = whole(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", String::new());
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

struct Upload {
    /// The body, when it is short.
    shown: Option<Vec<u8>>,
    length: u64,
    sha256: String,
}

/// None when the client went away first. The record is written here, before the response leaves:
/// who has the response can rely on the line.
async fn read(mut body: Incoming, mut record: RequestRecord) -> Option<Upload> {
    let mut shown = Some(Vec::new());
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(data) => {
                record.data(&data);
                shown = shown.filter(|shown| shown.len() + data.len() <= SHOWN);
                if let Some(shown) = &mut shown {
                    shown.extend_from_slice(&data);
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    record.trailers(trailers);
                }
            }
        }
    }
    record.complete();
    Some(Upload { shown, length: record.length(), sha256: record.sha256() })
}

async fn route(head: &Parts, peer: SocketAddr, upload: &Upload) -> Response<EchoBody> {
    let path = head.uri.path();
    let (first, rest) = match path[1.min(path.len())..].split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path.trim_start_matches('/'), None),
    };
    match (first, rest) {
        ("headers", None) => pretty(&json!({ "headers": headers(&head.headers) })),
        ("ip", None) => pretty(&json!({ "origin": peer.ip().to_string() })),
        ("user-agent", None) => {
            pretty(&json!({ "user-agent": text(&head.headers, header::USER_AGENT) }))
        }
        ("get", None) => only(&[Method::GET, Method::HEAD], head, || get(head, peer)),
        ("post", None) => only(&[Method::POST], head, || post(head, peer, upload)),
        ("put", None) => only(&[Method::PUT], head, || post(head, peer, upload)),
        ("anything", _) => {
            let mut all = post(head, peer, upload);
            all["method"] = head.method.as_str().into();
            pretty(&all)
        }
        ("status", Some(code)) => {
            match code.parse().ok().and_then(|c| StatusCode::from_u16(c).ok()) {
                Some(status) if status.as_u16() >= 200 => whole(status, "text/html", String::new()),
                _ => whole(StatusCode::BAD_REQUEST, "text/plain", "Invalid status code\n".into()),
            }
        }
        ("delay", Some(seconds)) => match seconds.parse::<f64>() {
            Ok(seconds) if (0.0..=3600.0).contains(&seconds) => {
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                pretty(&post(head, peer, upload))
            }
            _ => whole(StatusCode::BAD_REQUEST, "text/plain", "0 to 3600 seconds\n".into()),
        },
        ("bytes", Some(count)) => match count.parse() {
            Ok(count) => {
                response(StatusCode::OK, "application/octet-stream", EchoBody::Filling(count))
            }
            Err(_) => whole(StatusCode::BAD_REQUEST, "text/plain", "not a number\n".into()),
        },
        _ => whole(StatusCode::NOT_FOUND, "text/plain", format!("Not Found: {path}\n")),
    }
}

fn only(methods: &[Method], head: &Parts, value: impl FnOnce() -> Value) -> Response<EchoBody> {
    if methods.contains(&head.method) {
        return pretty(&value());
    }
    whole(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "Method Not Allowed\n".into())
}

fn get(head: &Parts, peer: SocketAddr) -> Value {
    let host = text(&head.headers, header::HOST).unwrap_or_default();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    json!({
        "args": parameters(head.uri.query().unwrap_or_default()),
        "headers": headers(&head.headers),
        "origin": peer.ip().to_string(),
        "url": format!("http://{host}{target}"),
    })
}

fn post(head: &Parts, peer: SocketAddr, upload: &Upload) -> Value {
    let mut value = get(head, peer);
    let body = upload.shown.as_deref().and_then(|shown| std::str::from_utf8(shown).ok());
    let kind = text(&head.headers, header::CONTENT_TYPE).unwrap_or_default();
    let form = kind.starts_with("application/x-www-form-urlencoded");
    value["form"] = parameters(body.filter(|_| form).unwrap_or_default());
    value["files"] = json!({});
    value["json"] = body.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
    value["data"] = match body {
        Some(_) if form => "".into(),
        Some(text) => text.into(),
        None => format!("<{} bytes, sha256 {}>", upload.length, upload.sha256).into(),
    };
    value
}

/// Names in title case, several values of a name joined by commas, as WSGI servers do.
fn headers(headers: &HeaderMap) -> Value {
    let joined = |name| {
        let values = headers.get_all(name).iter();
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.collect::<Vec<_>>().join(",")
    };
    let all = headers.keys().map(|name| (title(name.as_str()), joined(name).into()));
    Value::Object(all.collect::<Map<_, _>>())
}

fn title(name: &str) -> String {
    let word = |word: &str| match word.split_at_checked(1) {
        Some((first, rest)) => first.to_ascii_uppercase() + rest,
        None => String::new(),
    };
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}

/// `a=1&b=2&b=3` as `{"a": "1", "b": ["2", "3"]}`.
fn parameters(query: &str) -> Value {
    let mut all = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = Value::from(decode(value));
        match all.entry(decode(name)).or_insert(Value::Null) {
            Value::Array(values) => values.push(value),
            slot @ Value::Null => *slot = value,
            slot => *slot = Value::Array(vec![slot.take(), value]),
        }
    }
    Value::Object(all)
}

/// Undoes percent-encoding; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let text = text.as_bytes();
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let hex = text.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(value)) => {
                decoded.push(value);
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            _ => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// JSON as httpbin prints it: sorted names, two spaces, and a space after each comma.
fn pretty(value: &Value) -> Response<EchoBody> {
    // serde_json's Map is sorted, and a Value made here always serializes.
    let mut body = format!("{value:#}").replace(",\n", ", \n");
    body.push('\n');
    whole(StatusCode::OK, "application/json", body)
}

fn whole(status: StatusCode, kind: &'static str, body: String) -> Response<EchoBody> {
    response(status, kind, EchoBody::Whole(body.into()))
}

fn response(status: StatusCode, kind: &'static str, body: EchoBody) -> Response<EchoBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("mirror-echo"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walkthroughs_response_is_byte_for_byte() {
        let mut map = HeaderMap::new();
        map.insert("user-agent", "curl/8.7.1".parse().unwrap());
        map.insert("host", "httpbin:8000".parse().unwrap());
        map.insert("accept", "*/*".parse().unwrap());
        let response = pretty(&json!({ "headers": headers(&map) }));
        let EchoBody::Whole(body) = response.body() else { panic!("not whole") };
        assert_eq!(body.len(), 105);
        assert_eq!(
            body,
            "{\n  \"headers\": {\n    \"Accept\": \"*/*\", \n    \"Host\": \"httpbin:8000\", \n    \
             \"User-Agent\": \"curl/8.7.1\"\n  }\n}\n"
        );
    }

    #[test]
    fn parameters_are_decoded_and_grouped() {
        assert_eq!(
            parameters("a=1&b=x%20y&b=%zz+&c"),
            json!({
                "a": "1", "b": ["x y", "%zz "], "c": "",
            })
        );
    }
}
