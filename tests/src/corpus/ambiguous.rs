//! Requests that two recipients could understand in two ways, sent through the agent; what a
//! primary gets of them is read strictly.
//!
//! In: the files `*.ambiguous`. A case is `== name`, `send` with the bytes (each a separate write)
//! or, for a client of HTTP/2 whose primary knows HTTP/1 alone, `frame` with one of its frames, and one or more lines `allow`, each a list of what the primary may see, joined by `then`:
//! `METHOD TARGET HOST "BODY"` (`-` is an empty host) a whole request with nothing ambiguous about it,
//! and at the end
//! `refused` (nothing more reaches the primary; the client gets a 4xx, or its connection ends),
//! `cut` (as refused, but a part of one more request may have reached the primary, which never
//! becomes whole) or `opaque` (not HTTP by its first line: the primary gets the very bytes).
//! Out: what was seen, and whether it is allowed.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
    time::{sleep, timeout},
};

use super::{
    files,
    frames::{Frame, PREFACE},
    script::{Word, texts, words},
    strict::{self, Read, Request},
};
use crate::namespace::inside;

/// So long nothing comes before the client closes its side.
const SILENCE: Duration = Duration::from_millis(700);

/// Longest time for a client's connection to end after that.
const END: Duration = Duration::from_secs(5);

/// One case.
#[derive(Debug)]
pub struct Case {
    /// Unique in the corpus.
    pub name: String,
    writes: Vec<Vec<u8>>,
    /// The writes are frames, and so is what comes back.
    http2: bool,
    allowed: Vec<Allowed>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Allowed {
    whole: Vec<Request>,
    rest: Rest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Rest {
    /// Nothing is left.
    #[default]
    Nothing,
    Refused,
    Cut,
    Opaque,
}

/// What was seen of a case.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Observed {
    /// What the primary got, by connection.
    pub primary: Vec<String>,
    /// The whole requests among it, in the order in which they came.
    pub requests: Vec<Request>,
    /// What is ambiguous about what it got.
    pub bad: Vec<String>,
    /// Whether it got a part of one more.
    pub part: bool,
    /// What the client got.
    pub client: String,
}

/// Reads all cases.
///
/// # Errors
/// A file cannot be understood, with its name and line.
pub fn load() -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for (file, text) in files("ambiguous")? {
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                read(line, &mut cases)
                    .with_context(|| format!("{file}, line {}: {line}", at + 1))?;
            }
        }
    }
    for case in &cases {
        let complete = !case.writes.is_empty() && !case.allowed.is_empty();
        ensure!(complete, "{}: something to send, and what is allowed", case.name);
    }
    Ok(cases)
}

fn read(line: &str, cases: &mut Vec<Case>) -> Result<()> {
    if let Some(name) = line.strip_prefix("== ") {
        ensure!(cases.iter().all(|case| case.name != name), "the name is taken");
        let (name, writes, allowed) = (name.to_owned(), Vec::new(), Vec::new());
        cases.push(Case { name, writes, http2: false, allowed });
        return Ok(());
    }
    let case = cases.last_mut().context("a case begins with == name")?;
    match line.split_once(' ') {
        Some(("send", bytes)) => case.writes.push(texts(bytes)?),
        Some(("frame", frame)) => {
            let (verb, rest) = frame.split_once(' ').unwrap_or((frame, ""));
            case.http2 = true;
            case.writes.push(Frame::parse(verb, &words(rest)?)?.bytes(&[]));
        }
        Some(("allow", what)) => case.allowed.push(allowed(&words(what)?)?),
        _ => bail!("send, frame or allow"),
    }
    Ok(())
}

fn allowed(words: &[Word]) -> Result<Allowed> {
    let mut allowed = Allowed::default();
    for part in words.split(|word| *word == Word::Plain("then".into())) {
        ensure!(allowed.rest == Rest::Nothing, "nothing comes after refused, cut or opaque");
        match part {
            [Word::Plain(rest)] => {
                allowed.rest = match rest.as_str() {
                    "refused" => Rest::Refused,
                    "cut" => Rest::Cut,
                    "opaque" => Rest::Opaque,
                    other => bail!("{other} is no end"),
                }
            }
            [Word::Plain(method), Word::Plain(target), Word::Plain(host), Word::Text(body)] => {
                let body = body.escape_ascii().to_string();
                let host = if host == "-" { String::new() } else { host.clone() };
                let (method, target) = (method.clone(), target.clone());
                allowed.whole.push(Request { method, target, host, body });
            }
            _ => bail!("METHOD TARGET HOST \"BODY\""),
        }
    }
    Ok(allowed)
}

impl Case {
    /// Whether what was seen is one of what is allowed.
    ///
    /// # Errors
    /// It is not; with all that was seen.
    pub fn check(&self, seen: &Observed) -> Result<()> {
        let sent = self.writes.concat().escape_ascii().to_string();
        let failures: Vec<_> = self
            .allowed
            .iter()
            .map(|allowed| allowed.check(seen, &sent, self.http2))
            .take_while(std::result::Result::is_err)
            .filter_map(std::result::Result::err)
            .collect();
        if failures.len() < self.allowed.len() {
            return Ok(());
        }
        bail!(
            "{}: {}\n  sent    {sent}\n  primary {:?} {:?} {:?}\n  client  {}",
            self.name,
            failures.join("; "),
            seen.primary,
            seen.requests.iter().map(ToString::to_string).collect::<Vec<_>>(),
            seen.bad,
            seen.client
        )
    }
}

impl Allowed {
    fn check(&self, seen: &Observed, sent: &str, http2: bool) -> std::result::Result<(), String> {
        if self.rest == Rest::Opaque {
            let same = seen.primary == [sent];
            return if same { Ok(()) } else { Err("other bytes than were sent".into()) };
        }
        if let Some(bad) = seen.bad.first() {
            return Err(format!("the primary got {bad}"));
        }
        if seen.requests != self.whole {
            return Err(format!("{} requests, not those allowed", seen.requests.len()));
        }
        if seen.part && self.rest != Rest::Cut {
            return Err("the primary got a part of a request".into());
        }
        if http2 { Ok(()) } else { self.check_answers(&seen.client) }
    }

    /// The client got a response to each request that reached the primary, and nothing else but one
    /// refusal.
    fn check_answers(&self, client: &str) -> std::result::Result<(), String> {
        // What the agent says on its own hop.
        let client = client.replace(r"HTTP/1.1 100 Continue\r\n\r\n", "");
        let client = client.replace(r"connection: close\r\n", "");
        let mut rest = client.as_str();
        for request in &self.whole {
            let response = response(request).escape_ascii().to_string();
            let Some(after) = rest.strip_prefix(&response) else {
                return Err(format!("no response to {request}"));
            };
            rest = after;
        }
        let refusal = rest.starts_with("HTTP/1.1 4") && !rest.contains("HTTP/1.1 200");
        let fine = rest.is_empty() || (self.rest != Rest::Nothing && refusal);
        if fine { Ok(()) } else { Err(format!("the client got as well: {rest}")) }
    }
}

/// Plays all cases at once; what was seen of each.
///
/// # Errors
/// A listener cannot be made, or the corpus cannot be read.
pub fn run_all(netns: &Path, target: IpAddr, base: u16) -> Result<BTreeMap<String, Observed>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut tasks = Vec::new();
        for (port, case) in (base..).zip(load()?) {
            let listener = inside(netns, || std::net::TcpListener::bind(("0.0.0.0", port)))??;
            listener.set_nonblocking(true)?;
            let seen: Rc<RefCell<Observed>> = Rc::default();
            let server = spawn_local(serve(TcpListener::from_std(listener)?, Rc::clone(&seen)));
            tasks.push(spawn_local(async move {
                let client = client(&case, SocketAddr::new(target, port)).await;
                // A part of a request becomes none any more; idle connections may stay.
                sleep(Duration::from_millis(200)).await;
                server.abort();
                let mut seen = seen.take();
                seen.client = client?.escape_ascii().to_string();
                anyhow::Ok((case.name, seen))
            }));
        }
        let mut all = BTreeMap::new();
        for task in tasks {
            all.extend([task.await??]);
        }
        Ok(all)
    })
}

/// Sends the case, and reads until the connection ends.
async fn client(case: &Case, target: SocketAddr) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let mut got = Vec::new();
    for write in &case.writes {
        // It may be refused before it is whole; what is read shows that.
        if stream.write_all(write).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(if case.writes.len() > 1 { 50 } else { 0 })).await;
    }
    let mut open = true;
    while open {
        match timeout(SILENCE, stream.read_buf(&mut got)).await {
            Ok(Ok(n)) if n > 0 => {}
            Ok(_) => open = false,
            Err(_) => break,
        }
    }
    if open {
        // Fails on a connection that was reset meanwhile.
        let _ = stream.shutdown().await;
        let end = async { while matches!(stream.read_buf(&mut got).await, Ok(n) if n > 0) {} };
        timeout(END, end).await.with_context(|| format!("{} does not end", case.name))?;
    }
    Ok(got)
}

async fn serve(listener: TcpListener, seen: Rc<RefCell<Observed>>) {
    while let Ok((stream, _)) = listener.accept().await {
        spawn_local(connection(stream, Rc::clone(&seen)));
    }
}

/// Responds to whole requests; records all that comes.
async fn connection(mut stream: TcpStream, seen: Rc<RefCell<Observed>>) {
    let index = seen.borrow().primary.len();
    seen.borrow_mut().primary.push(String::new());
    let mut buffer = Vec::new();
    loop {
        if buffer.starts_with(PREFACE) {
            // As a server does that knows HTTP/1 alone; nothing was asked yet.
            seen.borrow_mut().primary[index] = "preface".into();
            let _ =
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
            return;
        }
        match strict::read(&buffer) {
            Read::Whole(request, length) => {
                buffer.drain(..length);
                let text = response(&request);
                seen.borrow_mut().requests.push(request);
                // A client that is gone is no matter here.
                let _ = stream.write_all(&text).await;
                continue;
            }
            Read::Bad(_) if PREFACE.starts_with(&buffer) => {}
            Read::Bad(why) => return seen.borrow_mut().bad.push(why),
            Read::Part => {}
        }
        let before = buffer.len();
        match stream.read_buf(&mut buffer).await {
            Ok(n) if n > 0 => {
                let more = buffer[before..].escape_ascii().to_string();
                seen.borrow_mut().primary[index].push_str(&more);
            }
            _ => break,
        }
    }
    seen.borrow_mut().part |= !buffer.is_empty();
}

fn response(request: &Request) -> Vec<u8> {
    let body = format!("{} {}", request.method, request.target);
    let shown = if request.method == "HEAD" { "" } else { &body };
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{shown}", body.len()).into_bytes()
}
