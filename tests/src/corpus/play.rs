//! Playing: one script drives both ends, one step after the other, so that the order of events is
//! the script's on every way. In: a conversation, an address to connect to, a listener. Out: what
//! each step saw.
//!
//! Whatever arrives is read at once; a step that waits takes what it waits for. At the end the
//! client closes its side, and both sides are read to their ends.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    io::ErrorKind,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::LocalSet,
    time::{Instant, sleep, timeout_at},
};

use super::{
    frames::{self, Event, Reader},
    message,
    peer::{End, Peer},
    script::{Act, Conversation, Protocol, Role, Until},
};
use crate::namespace::inside;

/// What is waited for comes within this, on a busy machine as well.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same if the other side is gone, so that only what is in flight can still come.
const HOPELESS: Duration = Duration::from_secs(1);

/// The same once something did not come.
const DERAILED: Duration = Duration::from_millis(300);

/// How long both sides are read at the end: an agent's idle connections live for a second.
const EPILOGUE: Duration = Duration::from_secs(3);

/// At once, in one process.
const CONCURRENCY: usize = 48;

/// What one step saw, or (`step` is None) what there was at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub(super) step: Option<usize>,
    pub(super) side: Role,
    /// Of a server: which of its connections, from 0.
    pub(super) connection: usize,
    pub(super) got: Vec<u8>,
    pub(super) events: Vec<Event>,
    pub(super) end: Option<End>,
}

/// Plays all conversations, many at once: the client's sockets are made by this process where it
/// is, the server's inside `netns`. Conversation N uses the port `base` + N on both.
///
/// # Errors
/// A listener cannot be made.
pub fn run_all(
    conversations: &[Conversation],
    netns: &Path,
    target: std::net::IpAddr,
    base: u16,
) -> Result<BTreeMap<String, Vec<Outcome>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let places = Arc::new(Semaphore::new(CONCURRENCY));
        let mut tasks = Vec::new();
        for (port, conversation) in (base..).zip(conversations.iter().cloned()) {
            let listener = listen(netns, port, &conversation)?;
            let target = SocketAddr::new(target, port);
            let places = Arc::clone(&places);
            tasks.push(tokio::task::spawn_local(async move {
                let _place = places.acquire().await.context("the semaphore is never closed")?;
                let outcomes = Play::begin(&conversation, target, listener).await.play().await;
                anyhow::Ok((conversation.name, outcomes))
            }));
        }
        let mut all = BTreeMap::new();
        for task in tasks {
            all.extend([task.await??]);
        }
        Ok(all)
    })
}

/// None if the conversation has no listener.
fn listen(netns: &Path, port: u16, conversation: &Conversation) -> Result<Option<TcpListener>> {
    if conversation.steps.first().is_some_and(|step| step.act == Act::Absent) {
        return Ok(None);
    }
    let listener = inside(netns, || std::net::TcpListener::bind(("0.0.0.0", port)))??;
    listener.set_nonblocking(true)?;
    Ok(Some(TcpListener::from_std(listener)?))
}

struct Play<'a> {
    conversation: &'a Conversation,
    listener: Option<TcpListener>,
    client: Option<Peer>,
    servers: Vec<Peer>,
    /// The server's connection that the last step was about.
    current: usize,
    derailed: bool,
    outcomes: Vec<Outcome>,
}

impl<'a> Play<'a> {
    async fn begin(
        conversation: &'a Conversation,
        target: SocketAddr,
        listener: Option<TcpListener>,
    ) -> Self {
        let mut play = Self {
            conversation,
            listener,
            client: None,
            servers: Vec::new(),
            current: 0,
            derailed: false,
            outcomes: Vec::new(),
        };
        let deadline = Instant::now() + PATIENCE;
        match timeout_at(deadline, TcpStream::connect(target)).await {
            Ok(Ok(stream)) => {
                play.client = Some(Peer::new(stream, play.reader(Role::Client)));
            }
            // Reset so soon that connect(2) reports it.
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionReset => {
                play.client = Some(Peer::gone(play.reader(Role::Client)));
            }
            Ok(Err(_)) | Err(_) => play.tell(None, Role::Client, 0, Vec::new(), End::Refused),
        }
        play
    }

    fn reader(&self, side: Role) -> Option<Reader> {
        (self.conversation.speaks == Protocol::Frames).then(|| match side {
            Role::Client => Reader::of_client(),
            Role::Server => Reader::of_server(),
        })
    }

    async fn play(mut self) -> Vec<Outcome> {
        let conversation = self.conversation;
        for (number, step) in conversation.steps.iter().enumerate() {
            match &step.act {
                Act::Send(bytes) => self.send(step.side, bytes).await,
                Act::Frame(frame) => {
                    self.accepted(step.side).await;
                    let bytes = frame.bytes(&self.opened(step.side));
                    self.send(step.side, &bytes).await;
                }
                Act::Wait(until) => self.wait(number, step.side, until).await,
                Act::Quiet(time) => {
                    self.pump_for(*time).await;
                    self.tell_noise(number, step.side);
                }
                Act::Pause(time) => self.pump_for(*time).await,
                Act::Fin => {
                    self.accepted(step.side).await;
                    if let Some(peer) = self.peer(step.side) {
                        peer.fin().await;
                    }
                }
                Act::Close | Act::Reset => {
                    self.accepted(step.side).await;
                    let reset = step.act == Act::Reset;
                    if let Some(peer) = self.peer(step.side) {
                        if reset { peer.reset() } else { peer.close() }
                    }
                }
                Act::Absent => {}
            }
        }
        self.epilogue().await;
        self.outcomes
    }

    async fn send(&mut self, side: Role, bytes: &[u8]) {
        self.accepted(side).await;
        let deadline = Instant::now() + self.patience();
        let (mut left, index) = (bytes, self.index(side));
        let sent = poll_fn(|cx| {
            // All else is read meanwhile: a response may come first, and windows are finite.
            let _ = self.poll(cx);
            let peer = match side {
                Role::Client => self.client.as_mut(),
                Role::Server => self.servers.get_mut(index),
            };
            peer.map_or(Poll::Ready(()), |peer| peer.poll_send(cx, &mut left))
        });
        // A peer that takes no more shows in what it says, or does not.
        self.derailed |= timeout_at(deadline, sent).await.is_err();
    }

    /// Before the server's first step there has to be a connection.
    async fn accepted(&mut self, side: Role) {
        let deadline = Instant::now() + self.patience();
        while side == Role::Server && self.servers.is_empty() {
            if self.listener.is_none() || !self.pump(deadline).await {
                self.derailed = true;
                return;
            }
        }
    }

    async fn wait(&mut self, number: usize, side: Role, until: &Until) {
        let mut deadline = Instant::now() + self.patience();
        loop {
            if self.satisfied(number, side, until) {
                return;
            }
            if *until != Until::End && self.is_hopeless(side) {
                deadline = deadline.min(Instant::now() + HOPELESS);
            }
            if !self.pump(deadline).await {
                break;
            }
        }
        self.derailed = true;
        let at = self.index(side);
        if *until == Until::End || self.peer(side).is_none() {
            // What came of it is reported all the same.
            self.take_all(Some(number), side, at);
        } else {
            self.miss(number, side, at);
        }
    }

    /// What is waited for cannot come any more, or hardly.
    fn is_hopeless(&self, side: Role) -> bool {
        let client = self.client.as_ref().is_none_or(|peer| peer.end.is_some());
        match side {
            Role::Client => client,
            Role::Server => {
                let open = self.servers.iter().any(|peer| peer.end.is_none());
                client || (!open && !self.servers.is_empty())
            }
        }
    }

    /// Takes what is waited for, if it is there.
    fn satisfied(&mut self, number: usize, side: Role, until: &Until) -> bool {
        let candidates = match side {
            Role::Client => 0..1,
            Role::Server if *until == Until::End => self.current..self.current + 1,
            Role::Server => 0..self.servers.len(),
        };
        for at in candidates {
            let peer = match side {
                Role::Client => self.client.as_mut(),
                Role::Server => self.servers.get_mut(at),
            };
            let Some(peer) = peer else { continue };
            let Some((got, events)) = take(peer, side, until) else { continue };
            let end = peer.end.filter(|_| *until == Until::End);
            if side == Role::Server {
                self.current = at;
            }
            let step = Some(number);
            self.outcomes.push(Outcome { step, side, connection: at, got, events, end });
            return true;
        }
        false
    }

    /// Whether anything has come or ended; it stays for later steps.
    fn tell_noise(&mut self, number: usize, side: Role) {
        let at = self.index(side);
        let Some(peer) = self.peer(side) else { return };
        let silent = peer.buffer.is_empty() && peer.frames.as_ref().is_none_or(Reader::is_empty);
        let end = if silent { peer.end } else { Some(End::Noise) };
        if let Some(end) = end {
            self.tell(Some(number), side, at, Vec::new(), end);
        }
    }

    /// What there was when it was given up, which stays for later steps.
    fn miss(&mut self, number: usize, side: Role, at: usize) {
        let end = self.peer(side).and_then(|peer| peer.end).unwrap_or(End::Missed);
        self.tell(Some(number), side, at, Vec::new(), end);
    }

    async fn epilogue(&mut self) {
        if let Some(client) = &mut self.client {
            client.fin().await;
        }
        let deadline = Instant::now() + EPILOGUE;
        while self.servers.iter().any(|peer| peer.end.is_none()) && self.pump(deadline).await {}
        self.servers.iter_mut().for_each(Peer::close);
        let deadline = Instant::now() + EPILOGUE;
        while self.client.as_ref().is_some_and(|peer| peer.end.is_none())
            && self.pump(deadline).await
        {}
        if self.client.is_some() {
            self.take_all(None, Role::Client, 0);
        }
        for at in 0..self.servers.len() {
            self.take_all(None, Role::Server, at);
        }
    }

    fn take_all(&mut self, step: Option<usize>, side: Role, at: usize) {
        let peer = match side {
            Role::Client => self.client.as_mut(),
            Role::Server => self.servers.get_mut(at),
        };
        let Some(peer) = peer else { return self.tell(step, side, at, Vec::new(), End::None) };
        let events = peer.frames.as_mut().map(Reader::rest).unwrap_or_default();
        let (got, end) = (std::mem::take(&mut peer.buffer), peer.end);
        self.outcomes.push(Outcome { step, side, connection: at, got, events, end });
    }

    fn tell(&mut self, step: Option<usize>, side: Role, at: usize, got: Vec<u8>, end: End) {
        let end = Some(end);
        self.outcomes.push(Outcome { step, side, connection: at, got, events: Vec::new(), end });
    }

    fn patience(&self) -> Duration {
        if self.derailed { DERAILED } else { PATIENCE }
    }

    fn index(&self, side: Role) -> usize {
        if side == Role::Client { 0 } else { self.current }
    }

    fn peer(&mut self, side: Role) -> Option<&mut Peer> {
        match side {
            Role::Client => self.client.as_mut(),
            Role::Server => self.servers.get_mut(self.current),
        }
    }

    fn opened(&mut self, side: Role) -> Vec<u32> {
        let frames = self.peer(side).and_then(|peer| peer.frames.as_ref());
        frames.map(|frames| frames.opened.clone()).unwrap_or_default()
    }

    /// Waits until something arrives anywhere; false when the time is over.
    async fn pump(&mut self, deadline: Instant) -> bool {
        timeout_at(deadline, poll_fn(|cx| self.poll(cx))).await.is_ok()
    }

    async fn pump_for(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while self.pump(deadline).await {}
        sleep(deadline - Instant::now()).await;
    }

    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut polled = Poll::Pending;
        if let Some(listener) = &self.listener
            && let Poll::Ready(Ok((stream, _))) = listener.poll_accept(cx)
        {
            let mut peer = Peer::new(stream, self.reader(Role::Server));
            if peer.frames.is_some() {
                peer.say(&frames::server_preface());
            }
            self.servers.push(peer);
            polled = Poll::Ready(());
        }
        for peer in self.client.iter_mut().chain(&mut self.servers) {
            if peer.poll_fill(cx).is_ready() {
                polled = Poll::Ready(());
            }
        }
        polled
    }
}

/// What is waited for, out of what has arrived.
fn take(peer: &mut Peer, side: Role, until: &Until) -> Option<(Vec<u8>, Vec<Event>)> {
    let buffer = &mut peer.buffer;
    let length = match until {
        Until::Marker(marker) => {
            buffer.windows(marker.len()).position(|w| w == marker).map(|at| at + marker.len())
        }
        Until::Count(count) => (buffer.len() >= *count).then_some(*count),
        Until::Message { bodiless } => message::length(buffer, side == Role::Client, *bodiless),
        Until::End => peer.end.map(|_| buffer.len()),
        Until::Event(wanted) => {
            return Some((Vec::new(), peer.frames.as_mut()?.take(wanted)?));
        }
    };
    let got = buffer.drain(..length?).collect();
    let events = peer.frames.as_mut().map(Reader::rest).unwrap_or_default();
    Some((got, events))
}
