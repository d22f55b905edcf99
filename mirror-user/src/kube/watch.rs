//! The watch of one kind. In: a client and a [`Resource`]. Out: [`Event`]s over a bounded channel,
//! until its receiver is dropped. Objects are handed over as they came, one by one: what one of
//! them says can neither stop nor delay the others.
//!
//! kube's own watcher is not used, because kube 4.2's, against real servers, (1) repeats forever
//! what a server without streaming lists refuses, (2) retries a failing list every second
//! forever, (3) mixes an interrupted list with the next, (4) takes 8 to 14 s to recover from an
//! outage of 10 s.
//!
//! - A streaming list is tried first (KEP-3157); a server that refuses it (400, 422) or does not
//!   end it is asked for paged lists from then on.
//! - A cut watch resumes from where it was. When the server has forgotten that (410) or refuses
//!   it, everything is listed again.
//! - After a failure it waits, see [`Backoff`]; only a complete list, or a watch that lasted, shows
//!   that the failure is over.

use std::{sync::Arc, time::Duration};

use ::kube::Client;
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use self::{
    message::{Message, Page},
    stream::{LineReader, open},
};
use super::{Backoff, Health, Resource};

mod error;
mod message;
mod stream;
#[cfg(test)]
mod tests;

pub use self::error::WatchError;
use crate::model::ObjectName;

/// Events that may wait for their reader: each may be as large as the API server lets objects be.
const QUEUE: usize = 16;

/// How long the server keeps one watch open: spread, so that not all end at once.
const LASTS: std::ops::Range<u64> = 300..600;

/// A watch that was open for so long is a success.
const LASTED: Duration = Duration::from_secs(5);

/// How soon a server that has forgotten (410) is asked again at the latest.
const SOON: Duration = Duration::from_millis(1500);

/// How soon one that knows no such kind (404) is.
const MISSING: Duration = Duration::from_secs(5);

/// What a watch reports.
#[derive(Debug)]
pub enum Event {
    /// A list begins: known objects that it does not name are gone at [`Event::Complete`].
    /// If another Started comes before that, the list was cut.
    Started,
    /// An object is there, or has changed. Its JSON lacks apiVersion and kind in a paged list.
    Applied(ObjectName, Box<RawValue>),
    /// An object is gone.
    Deleted(ObjectName),
    /// The list is complete.
    Complete,
    /// The server knows no such kind (404), and has said nothing else for so long. The first one
    /// after a start or a restart of the server may be wrong.
    Missing(Duration),
}

/// A watch that has not begun.
pub struct Watch {
    client: Client,
    resource: Resource,
    events: mpsc::Sender<Event>,
    health: Health,
    retry_now: Arc<Notify>,
    relist: Arc<Notify>,
    /// Whether the server is believed to stream lists.
    streaming: bool,
    /// Where to resume; None: list first.
    version: Option<String>,
    missing_since: Option<Instant>,
    backoff: Backoff,
}

/// How one attempt ended.
type AttemptResult = Result<(), WatchError>;

impl Watch {
    /// A watch, and where its events arrive. It begins with [`Watch::run`].
    #[must_use]
    pub fn new(client: Client, resource: Resource) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(QUEUE);
        let watch = Self {
            client,
            resource,
            events,
            health: Health::default(),
            retry_now: Arc::default(),
            relist: Arc::default(),
            streaming: true,
            version: None,
            missing_since: None,
            backoff: Backoff::default(),
        };
        (watch, receiver)
    }

    /// How it fares.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Ends the wait after a failure: `notify_one` it when there is reason to believe that the kind
    /// exists now.
    #[must_use]
    pub fn retry_now(&self) -> Arc<Notify> {
        Arc::clone(&self.retry_now)
    }

    /// Has everything listed again: `notify_one` it.
    #[must_use]
    pub fn relist(&self) -> Arc<Notify> {
        Arc::clone(&self.relist)
    }

    /// Watches until the receiver is dropped.
    pub async fn run(mut self) {
        let events = self.events.clone();
        tokio::select! {
            () = events.closed() => {}
            () = self.repeat() => {}
        }
    }

    async fn repeat(&mut self) {
        loop {
            let relist = Arc::clone(&self.relist);
            let result = tokio::select! {
                result = self.attempt() => result,
                () = relist.notified() => {
                    self.version = None;
                    continue;
                }
            };
            let Err(error) = result else { continue };
            if matches!(error, WatchError::Unread) {
                return;
            }
            let wait = self.fail(&error).await;
            // One that came during the attempt counts: the attempt may have been too early.
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.retry_now.notified() => {}
            }
        }
    }

    /// Lists if need be, and follows what comes after until that ends.
    async fn attempt(&mut self) -> AttemptResult {
        let lasts = Duration::from_secs(rand::random_range(LASTS));
        if let Some(version) = self.version.clone() {
            let request = self.resource.watch(&version, lasts);
            let reader = self.open(request).await?;
            return self.follow(reader, false).await;
        }
        if !self.streaming {
            return self.list_pages().await;
        }
        let request = self.resource.streaming_list(lasts);
        let reader = match self.open(request).await {
            Err(WatchError::Refused { status: 400 | 422, message, .. }) => {
                self.page_from_now_on(&message);
                return Ok(());
            }
            reader => reader?,
        };
        self.send(Event::Started).await?;
        match self.follow(reader, true).await {
            // Servers from before 1.27 take it for an ordinary watch.
            Err(WatchError::Silent(limit)) if self.version.is_none() => {
                self.page_from_now_on(&format!("no end of the list within {limit:?}"));
                Ok(())
            }
            ended => ended,
        }
    }

    fn page_from_now_on(&mut self, why: &str) {
        self.streaming = false;
        tracing::info!(
            kind = self.resource.kind,
            why,
            "the API server does not support streaming lists; using paged ones"
        );
    }

    async fn open(
        &mut self,
        request: http::Request<::kube::client::Body>,
    ) -> Result<LineReader, WatchError> {
        let reader = open(&self.client, request).await?;
        self.missing_since = None;
        self.health.record_message();
        Ok(reader)
    }

    /// Reads all pages, and with the last one the version from which a watch continues.
    async fn list_pages(&mut self) -> AttemptResult {
        self.send(Event::Started).await?;
        let mut after: Option<String> = None;
        loop {
            let request = self.resource.page(after.as_deref());
            let text = self.open(request).await?.all().await?;
            let page = Page::parse(&text)?;
            for object in page.items {
                self.apply(object).await?;
            }
            after = page.after;
            if after.is_none() {
                return self.complete(page.version).await;
            }
        }
    }

    /// Passes on the stream's events. `listing`: it begins with all existing objects, up to the
    /// bookmark that says so.
    async fn follow(&mut self, mut reader: LineReader, mut listing: bool) -> AttemptResult {
        let opened = Instant::now();
        if !listing {
            self.health.current();
        }
        while let Some(line) = reader.next(listing).await? {
            self.health.record_message();
            if !listing && opened.elapsed() >= LASTED {
                self.recovered();
            }
            match Message::parse(&line)? {
                Message::Applied { version, object } => {
                    self.apply(object).await?;
                    self.advance(version, listing);
                }
                Message::Deleted { version, name } => {
                    self.send(Event::Deleted(name)).await?;
                    self.advance(version, listing);
                }
                Message::Bookmark { version, ends_list } if listing && ends_list => {
                    listing = false;
                    self.complete(version).await?;
                    self.health.current();
                }
                Message::Bookmark { version, .. } => self.advance(Some(version), listing),
            }
        }
        if listing || opened.elapsed() < LASTED {
            return Err(WatchError::Cut("the server ended the stream early".into()));
        }
        self.recovered();
        Ok(())
    }

    /// While listing, versions are those of the objects, in no order.
    fn advance(&mut self, version: Option<String>, listing: bool) {
        if !listing && version.is_some() {
            self.version = version;
        }
    }

    async fn complete(&mut self, version: String) -> AttemptResult {
        self.version = Some(version);
        self.health.list();
        self.recovered();
        self.send(Event::Complete).await
    }

    fn recovered(&mut self) {
        let failing = self.backoff.failing();
        if !failing.is_zero() {
            let (kind, seconds) = (self.resource.kind, failing.as_secs_f32());
            tracing::info!(kind, seconds, "following the API server again");
        }
        self.backoff.reset();
    }

    async fn apply(&self, object: &RawValue) -> AttemptResult {
        match message::name(object) {
            Some(name) => self.send(Event::Applied(name, object.to_owned())).await,
            None => {
                let kind = self.resource.kind;
                tracing::error!(kind, "the API server sent an object without a name; ignoring it");
                Ok(())
            }
        }
    }

    async fn send(&self, event: Event) -> AttemptResult {
        self.events.send(event).await.map_err(|_| WatchError::Unread)
    }

    /// Records a failure, and returns how long to wait.
    async fn fail(&mut self, error: &WatchError) -> Duration {
        if self.backoff.failing().is_zero() && !error.is_routine() {
            tracing::warn!(kind = self.resource.kind, %error, "cannot follow the API server; retrying");
        } else {
            tracing::debug!(kind = self.resource.kind, %error, "cannot follow the API server; retrying");
        }
        if error.forgets(self.version.is_some()) {
            self.version = None;
        }
        self.health.fail(&error.to_string());
        match error {
            WatchError::Refused { status: 404, .. } => {
                let since = *self.missing_since.get_or_insert_with(Instant::now);
                // If the reader has ended, the next attempt ends as well.
                let _ = self.send(Event::Missing(since.elapsed())).await;
                self.backoff.after_failure(Duration::ZERO, MISSING)
            }
            WatchError::Refused { status: 410, .. } => {
                self.backoff.after_failure(Duration::from_millis(100), SOON)
            }
            WatchError::Refused { retry_after, .. } => {
                self.backoff.after_failure(*retry_after, Duration::MAX)
            }
            _ => self.backoff.after_failure(Duration::ZERO, Duration::MAX),
        }
    }
}
