//! `/exec/NAMESPACE/POD/CONTAINER`: a command inside a running container, by WebSocket.
//!
//! In: `command` (repeated), `input`, `output`, `error`; a WebSocket of the protocol
//! `v5.channel.k8s.io` (or v4, its like without closing stdin): each message begins with a channel's
//! number. Out: stdout and stderr on 1 and 2, at the end a Status on 3. There are no terminals.

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use http::{
    Request, Response, StatusCode,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
    },
};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use super::{Body, Query, text};
use crate::cluster::kubelet::record::{Record, State};

type Sink<S> = SplitSink<WebSocketStream<S>, Message>;
type Source<S> = SplitStream<WebSocketStream<S>>;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
/// Of v5: the next byte is the channel that is closed.
const CLOSE: u8 = 255;

pub(super) fn answer(
    record: &Record,
    query: &Query,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let State::Running { pid, .. } = record.state else {
        return text(StatusCode::BAD_REQUEST, "the container does not run");
    };
    let Some(launch) = &record.launch else {
        return text(StatusCode::BAD_REQUEST, "the container was not started");
    };
    if query.is("tty") {
        return text(StatusCode::BAD_REQUEST, "this node has no terminals: leave out -t");
    }
    let headers = request.headers();
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return text(StatusCode::BAD_REQUEST, "exec comes by WebSocket; SPDY is not spoken here");
    };
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = offered.filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    let mut known = ["v5.channel.k8s.io", "v4.channel.k8s.io"].into_iter();
    let Some(protocol) = known.find(|name| offered.split(',').any(|one| one.trim() == *name))
    else {
        return text(StatusCode::BAD_REQUEST, &format!("no known protocol among {offered:?}"));
    };
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let accept = derive_accept_key(key.as_bytes());
    let Ok(accept) = accept.parse() else {
        return text(StatusCode::BAD_REQUEST, "the WebSocket key has no response");
    };
    for (name, value) in [
        (CONNECTION, http::HeaderValue::from_static("Upgrade")),
        (UPGRADE, http::HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
        (SEC_WEBSOCKET_PROTOCOL, http::HeaderValue::from_static(protocol)),
    ] {
        response.headers_mut().insert(name, value);
    }
    let argv: Vec<_> = query.all("command").map(str::to_owned).collect();
    let mut command = Command::from(launch.exec(pid, &argv));
    let pipe = |wanted| if wanted { Stdio::piped() } else { Stdio::null() };
    command
        .stdin(pipe(query.is("input")))
        .stdout(pipe(query.is("output")))
        .stderr(pipe(query.is("error")))
        .kill_on_drop(true);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            let stream = TokioIo::new(stream);
            let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            // The client has gone: its command goes with it.
            let _ = run(socket, command).await;
        }
    });
    response
}

/// Runs the command, and carries its streams.
async fn run<S>(socket: WebSocketStream<S>, mut command: Command) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    // Signals to the client that the streams are open, as kubelet does.
    sink.send(message(STDOUT, &[])).await?;
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let status = json!({
                "metadata": {}, "status": "Failure", "message": format!("cannot run: {error}"),
                "reason": "InternalError", "code": 500,
            });
            sink.send(message(ERROR, status.to_string().as_bytes())).await?;
            return finish(sink, source).await;
        }
    };
    let mut stdin = child.stdin.take();
    let mut output = streams(&mut child);
    let mut open = true;
    loop {
        tokio::select! {
            chunk = output.recv() => match chunk {
                Some((channel, chunk)) => sink.send(message(channel, &chunk)).await?,
                // Both streams have ended.
                None => break,
            },
            received = source.next(), if open => match received {
                Some(Ok(Message::Binary(bytes))) => input(&mut stdin, &bytes).await,
                // The stream itself responds to pings, when it is next written to or read.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Text(_))) => {}
                _ => open = false,
            },
        }
        if !open {
            return Ok(());
        }
    }
    let status = child.wait().await?;
    sink.send(message(ERROR, verdict(status).to_string().as_bytes())).await?;
    finish(sink, source).await
}

/// Closes with 1000, which the client takes for the streams' end (anything else is a failure), and
/// waits a moment for its response.
async fn finish<S>(mut sink: Sink<S>, mut source: Source<S>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    sink.send(Message::Close(Some(frame))).await.context("close")?;
    let rest = async { while let Some(Ok(_)) = source.next().await {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
    Ok(())
}

/// What comes from the client: stdin's bytes, or its end.
async fn input(stdin: &mut Option<ChildStdin>, bytes: &[u8]) {
    match bytes {
        [STDIN, bytes @ ..] => {
            if let Some(pipe) = stdin
                && pipe.write_all(bytes).await.is_err()
            {
                *stdin = None;
            }
        }
        [CLOSE, STDIN] => *stdin = None,
        _ => {}
    }
}

/// stdout and stderr in chunks, by channel; ends when both have.
fn streams(child: &mut Child) -> mpsc::Receiver<(u8, Vec<u8>)> {
    let (sender, receiver) = mpsc::channel(16);
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(copy(STDOUT, stdout, sender.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(copy(STDERR, stderr, sender));
    }
    receiver
}

async fn copy(channel: u8, mut from: impl AsyncRead + Unpin, sender: mpsc::Sender<(u8, Vec<u8>)>) {
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        if sender.send((channel, chunk[..read].to_vec())).await.is_err() {
            return;
        }
    }
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    Message::binary([&[channel], bytes].concat())
}

/// A Status as kubectl reads an exit code from it.
fn verdict(status: ExitStatus) -> serde_json::Value {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}
