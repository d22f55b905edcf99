//! Peers of HTTP/2, by the h2 crate: a client and a scripted server, on one runtime of the test's.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{self, ResponseFuture, SendRequest},
    server::{self, SendResponse},
};
use http::{HeaderMap, Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    task::{JoinHandle, LocalSet, spawn_local},
    time::timeout,
};

use super::raw_connection::PATIENCE;

/// Runs a test's part that speaks HTTP/2.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bounded = async { timeout(4 * PATIENCE, test).await.expect("the test takes too long") };
    LocalSet::new().block_on(&runtime, bounded)
}

/// A request that a server got.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReceivedRequest {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    /// How it ended early.
    pub(crate) broke: Option<h2::Reason>,
}

/// A server of HTTP/2 on 127.0.0.1.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    got: Rc<RefCell<Vec<ReceivedRequest>>>,
    received: Rc<Cell<usize>>,
    connections: Rc<RefCell<Vec<JoinHandle<()>>>>,
    _task: Abort,
}

struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Upstream {
    /// Gives each stream to `script`.
    pub(crate) async fn start<F, Fut>(builder: server::Builder, script: F) -> Self
    where
        F: Fn(Stream) -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (got, connections) = (Rc::<RefCell<Vec<ReceivedRequest>>>::default(), Rc::default());
        let (told, opened, script) = (Rc::clone(&got), Rc::clone(&connections), Rc::new(script));
        let received = Rc::new(Cell::new(0));
        let count = Rc::clone(&received);
        let task = spawn_local(async move {
            let opened: Rc<RefCell<Vec<JoinHandle<()>>>> = opened;
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                stream.set_nodelay(true).expect("a socket");
                let (builder, told, script) = (builder.clone(), told.clone(), script.clone());
                let count = Rc::clone(&count);
                let task = spawn_local(async move {
                    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
                        return;
                    };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let (request, got) = (Some(request), Rc::clone(&told));
                        let received = Rc::clone(&count);
                        spawn_local(script(Stream { request, respond, got, received }));
                    }
                });
                opened.borrow_mut().push(task);
            }
        });
        Self { address, got, received, connections, _task: Abort(task) }
    }

    /// Answers each request with 200, its own body and trailers.
    pub(crate) async fn echo() -> Self {
        Self::start(server::Builder::new(), |mut stream| async move {
            let got = stream.take().await;
            if got.broke.is_none() {
                let mut body = stream.response(Response::new(()), false);
                body.send_data(got.body.into(), got.trailers.is_none()).expect("open");
                if let Some(trailers) = got.trailers {
                    body.send_trailers(trailers).expect("open");
                }
            }
        })
        .await
    }

    pub(crate) fn got(&self) -> Vec<ReceivedRequest> {
        self.got.borrow().clone()
    }

    /// Bytes of bodies that [`Stream::take`] has read so far, of those that go on as well.
    pub(crate) fn received(&self) -> usize {
        self.received.get()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Ends all connections.
    pub(crate) fn kill(&self) {
        self.connections.borrow().iter().for_each(JoinHandle::abort);
    }
}

/// A script's view of a stream.
pub(crate) struct Stream {
    pub(crate) request: Option<Request<RecvStream>>,
    pub(crate) respond: SendResponse<Bytes>,
    got: Rc<RefCell<Vec<ReceivedRequest>>>,
    received: Rc<Cell<usize>>,
}

impl Stream {
    /// The request to its end, recorded.
    pub(crate) async fn take(&mut self) -> ReceivedRequest {
        let (head, mut body) = self.request.take().expect("taken once").into_parts();
        let mut got = ReceivedRequest {
            method: head.method.to_string(),
            uri: head.uri.to_string(),
            headers: head.headers,
            ..ReceivedRequest::default()
        };
        let read =
            read_noting(&mut body, |count| self.received.set(self.received.get() + count)).await;
        (got.body, got.trailers, got.broke) = read;
        self.got.borrow_mut().push(got.clone());
        got
    }

    pub(crate) fn response(&mut self, head: Response<()>, whole: bool) -> SendStream<Bytes> {
        self.respond.send_response(head, whole).expect("the stream is open")
    }
}

/// A body to its end.
pub(crate) async fn read(
    body: &mut RecvStream,
) -> (Vec<u8>, Option<HeaderMap>, Option<h2::Reason>) {
    read_noting(body, |_| {}).await
}

/// The same, noting each piece.
async fn read_noting(
    body: &mut RecvStream,
    note: impl Fn(usize),
) -> (Vec<u8>, Option<HeaderMap>, Option<h2::Reason>) {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        match data {
            Ok(data) => {
                bytes.extend_from_slice(&data);
                note(data.len());
                let _ = body.flow_control().release_capacity(data.len());
            }
            Err(error) => return (bytes, None, Some(reason(&error))),
        }
    }
    match body.trailers().await {
        Ok(trailers) => (bytes, trailers, None),
        Err(error) => (bytes, None, Some(reason(&error))),
    }
}

pub(crate) fn reason(error: &h2::Error) -> h2::Reason {
    error.reason().unwrap_or(h2::Reason::CONNECT_ERROR)
}

/// A client's connection.
pub(crate) struct Client {
    sender: SendRequest<Bytes>,
    /// Runs until the connection's end.
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_as(&client::Builder::new(), address).await
    }

    pub(crate) async fn connect_as(builder: &client::Builder, address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a listener");
        Self::on(builder, stream).await
    }

    /// On a connection that is open.
    pub(crate) async fn on(builder: &client::Builder, stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        let hello = builder.handshake(stream);
        let (sender, connection) = hello.await.expect("a server of HTTP/2");
        Self { sender, connection: spawn_local(connection) }
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<()>,
        whole: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut ready = self.sender.clone().ready().await.expect("the connection lives");
        ready.send_request(request, whole).expect("the connection lives")
    }

    /// A request without a body, and its whole response.
    pub(crate) async fn get(&mut self, path: &str) -> Result<ReceivedResponse, h2::Error> {
        let (response, _) = self.send(get(path), true).await;
        ReceivedResponse::of(response).await
    }
}

/// A response to its end.
#[derive(Debug)]
pub(crate) struct ReceivedResponse {
    pub(crate) head: Response<()>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) broke: Option<h2::Reason>,
}

impl ReceivedResponse {
    pub(crate) async fn of(response: ResponseFuture) -> Result<Self, h2::Error> {
        let (head, mut body) = response.await?.into_parts();
        let (body, trailers, broke) = read(&mut body).await;
        Ok(Self { head: Response::from_parts(head, ()), body, trailers, broke })
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.status().as_u16()
    }
}

pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://front:8000{path}")).body(()).expect("a request")
}

pub(crate) fn post(path: &str) -> Request<()> {
    Request::post(format!("http://front:8000{path}")).body(()).expect("a request")
}

pub(crate) fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
        .collect::<Vec<(http::HeaderName, http::HeaderValue)>>()
        .into_iter()
        .collect()
}

/// Waits for a condition without keeping the runtime from going on.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "never came: {what}");
}
