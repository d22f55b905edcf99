//! The connections of HTTP/2 to one endpoint. In: requests for a stream. Out: room on a connection
//! that is open, or on a new one: for copies when all are at the endpoint's stream limit, for a
//! client's own requests when the one that there was takes no more. One is opened at a time: who
//! wants a stream meanwhile waits for it.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::Duration,
};

use tokio::sync::Notify;

use super::{GoAway, MultiplexedConnection, OpenError, Slot};

/// Connections to one endpoint.
pub(in crate::proxy) struct Http2Pool {
    open: RefCell<Vec<Rc<MultiplexedConnection>>>,
    opening: RefCell<Option<Rc<Opening>>>,
    /// Connections that take streams, at most; as many more may have some left to carry.
    most: usize,
    /// Streams that a connection carries before it is replaced.
    life: u64,
}

impl Default for Http2Pool {
    /// Without limits.
    fn default() -> Self {
        Self::limited(usize::MAX, u64::MAX)
    }
}

/// A connection being opened, for those who wait for it.
#[derive(Default)]
struct Opening {
    over: Notify,
    failed: Cell<Option<ConnectFailure>>,
}

#[derive(Clone, Copy)]
enum ConnectFailure {
    Http1,
    Full,
    Io(io::ErrorKind),
}

impl Http2Pool {
    /// With `most` connections, which carry `life` streams each and are then replaced.
    pub(in crate::proxy) fn limited(most: usize, life: u64) -> Self {
        Self { open: RefCell::default(), opening: RefCell::default(), most, life }
    }

    /// Room for one stream. `open` makes a connection, if one more is allowed.
    ///
    /// # Errors
    /// What `open` says, to all who wait for that connection; or none more is allowed.
    pub(in crate::proxy) async fn slot(
        &self,
        open: impl AsyncFn() -> Result<Rc<MultiplexedConnection>, OpenError>,
    ) -> Result<Slot, OpenError> {
        loop {
            if let Some(slot) = self.find() {
                return Ok(slot);
            }
            if self.opened().await? {
                continue;
            }
            self.sweep(Duration::MAX);
            // Even if the endpoint allows no stream: h2 then waits until it does.
            return match self.may_open() {
                true => Ok(self.add(open).await?.enter()),
                false => Err(OpenError::Full),
            };
        }
    }

    /// Room for one stream on the one connection that takes streams, behind those who wait for it
    /// already: a client that had this connection for itself would wait as well. `open` makes
    /// another once it takes no more.
    ///
    /// # Errors
    /// What `open` says, to all who wait for that connection.
    pub(in crate::proxy) async fn turn(
        &self,
        open: impl AsyncFn() -> Result<Rc<MultiplexedConnection>, OpenError>,
    ) -> Result<Slot, OpenError> {
        loop {
            let taking = self.open.borrow().iter().find(|one| !one.is_gone()).cloned();
            if let Some(connection) = taking {
                if let Some(slot) = connection.turn().await {
                    return Ok(slot);
                }
            } else if !self.opened().await? {
                self.sweep(Duration::MAX);
                let opened = self.add(&open).await?;
                if opened.is_gone() {
                    // It ended as soon as it was open: another would do so as well.
                    return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
                }
            }
        }
    }

    /// Waits for the connection that is being opened; false: none is.
    async fn opened(&self) -> Result<bool, OpenError> {
        let waiting = self.opening.borrow().clone();
        let Some(opening) = waiting else { return Ok(false) };
        opening.over.notified().await;
        match opening.failed.get() {
            None => Ok(true),
            Some(ConnectFailure::Http1) => Err(OpenError::Http1),
            Some(ConnectFailure::Full) => Err(OpenError::Full),
            Some(ConnectFailure::Io(kind)) => Err(OpenError::Io(kind.into())),
        }
    }

    /// Room on a connection that is open.
    pub(in crate::proxy) fn find(&self) -> Option<Slot> {
        let open = self.open.borrow();
        let slot = open
            .iter()
            .find(|connection| connection.has_room())
            .map(MultiplexedConnection::enter)?;
        // While too many have yet to end, one more than its life is better than none.
        let connection = slot.connection();
        if connection.entered() >= self.life && leaving(&open) < self.most {
            connection.retire();
        }
        Some(slot)
    }

    /// Whether [`Http2Pool::find`] would find some.
    pub(in crate::proxy) fn has_room(&self) -> bool {
        self.open.borrow().iter().any(|connection| connection.has_room())
    }

    /// Whether one more connection is allowed. Those that take no more streams count while they carry
    /// some: an endpoint that says GOAWAY and does not answer is not to get one for each request.
    pub(in crate::proxy) fn may_open(&self) -> bool {
        let open = self.open.borrow();
        let taking = open.iter().filter(|connection| !connection.is_gone()).count();
        let opening = usize::from(self.is_opening());
        taking + opening < self.most && leaving(&open) <= self.most
    }

    /// Whether a connection is being opened.
    pub(in crate::proxy) fn is_opening(&self) -> bool {
        self.opening.borrow().is_some()
    }

    /// Connections that are open or being opened.
    pub(in crate::proxy) fn len(&self) -> usize {
        self.open.borrow().len() + usize::from(self.opening.borrow().is_some())
    }

    /// The connections that have not ended, those included that take no more streams.
    pub(in crate::proxy) fn living(&self) -> Vec<Rc<MultiplexedConnection>> {
        self.open.borrow().iter().filter(|one| one.end().is_none()).cloned().collect()
    }

    /// The end of the last connection, if there was one and all have ended.
    pub(in crate::proxy) fn end(&self) -> Option<GoAway> {
        let open = self.open.borrow();
        if self.is_opening() || open.iter().any(|one| one.end().is_none()) {
            return None;
        }
        open.last().and_then(|last| last.end()).cloned()
    }

    /// Streams under way.
    pub(in crate::proxy) fn streams(&self) -> usize {
        self.open.borrow().iter().map(|connection| connection.streams()).sum()
    }

    /// Closes what has carried nothing for longer than `limit`; whether anything is left.
    pub(in crate::proxy) fn sweep(&self, limit: Duration) -> bool {
        self.open.borrow_mut().retain(|connection| !connection.is_over(limit));
        self.len() > 0
    }

    /// Ends all connections at once.
    pub(in crate::proxy) fn close(&self) {
        self.open.borrow_mut().drain(..).for_each(|connection| connection.close());
    }

    async fn add(
        &self,
        open: impl AsyncFn() -> Result<Rc<MultiplexedConnection>, OpenError>,
    ) -> Result<Rc<MultiplexedConnection>, OpenError> {
        let begun = ConnectGuard::new(self);
        match open().await {
            Ok(connection) => {
                self.open.borrow_mut().push(Rc::clone(&connection));
                Ok(connection)
            }
            Err(error) => {
                let failed = match &error {
                    OpenError::Http1 => ConnectFailure::Http1,
                    OpenError::Full => ConnectFailure::Full,
                    OpenError::Io(error) => ConnectFailure::Io(error.kind()),
                };
                begun.opening.failed.set(Some(failed));
                Err(error)
            }
        }
    }
}

/// How many take no more streams and have some left to carry.
fn leaving(open: &[Rc<MultiplexedConnection>]) -> usize {
    open.iter().filter(|connection| connection.is_gone() && connection.streams() > 0).count()
}

/// Ends the opening for those who wait, also when its maker goes away.
struct ConnectGuard<'a> {
    pool: &'a Http2Pool,
    opening: Rc<Opening>,
}

impl<'a> ConnectGuard<'a> {
    fn new(pool: &'a Http2Pool) -> Self {
        let opening = Rc::<Opening>::default();
        *pool.opening.borrow_mut() = Some(Rc::clone(&opening));
        Self { pool, opening }
    }
}

impl Drop for ConnectGuard<'_> {
    fn drop(&mut self) {
        *self.pool.opening.borrow_mut() = None;
        self.opening.over.notify_waiters();
    }
}
