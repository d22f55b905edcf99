//! The connections of HTTP/2 to one endpoint. In: wishes for a stream. Out: room on a connection
//! that is open, or on a new one when all are at the endpoint's stream limit. One is opened at a
//! time: who wants a stream meanwhile waits for it.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::Duration,
};

use tokio::sync::Notify;

use super::{Connection, OpenError, Slot};

/// Connections to one endpoint.
pub(in crate::proxy) struct Pool {
    open: RefCell<Vec<Rc<Connection>>>,
    opening: RefCell<Option<Rc<Opening>>>,
    /// Connections that take streams, at most; as many more may have some left to carry.
    most: usize,
    /// Streams that a connection carries before it is replaced.
    life: u64,
}

impl Default for Pool {
    /// Without limits.
    fn default() -> Self {
        Self::limited(usize::MAX, u64::MAX)
    }
}

/// A connection being opened, for those who wait for it.
#[derive(Default)]
struct Opening {
    over: Notify,
    failed: Cell<Option<Failed>>,
}

#[derive(Clone, Copy)]
enum Failed {
    Http1,
    Full,
    Io(io::ErrorKind),
}

impl Pool {
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
        open: impl AsyncFn() -> Result<Rc<Connection>, OpenError>,
    ) -> Result<Slot, OpenError> {
        loop {
            if let Some(slot) = self.find() {
                return Ok(slot);
            }
            let waiting = self.opening.borrow().clone();
            let Some(opening) = waiting else {
                self.sweep(Duration::MAX);
                return if self.may_open() { self.add(open).await } else { Err(OpenError::Full) };
            };
            opening.over.notified().await;
            match opening.failed.get() {
                None => {}
                Some(Failed::Http1) => return Err(OpenError::Http1),
                Some(Failed::Full) => return Err(OpenError::Full),
                Some(Failed::Io(kind)) => return Err(OpenError::Io(kind.into())),
            }
        }
    }

    /// Room on a connection that is open.
    pub(in crate::proxy) fn find(&self) -> Option<Slot> {
        let open = self.open.borrow();
        let slot = open.iter().find(|connection| connection.has_room()).map(Connection::enter)?;
        // While too many have yet to end, one more than its life is better than none.
        let connection = slot.connection();
        if connection.entered() >= self.life && leaving(&open) < self.most {
            connection.retire();
        }
        Some(slot)
    }

    /// Whether [`Pool::find`] would find some.
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
        open: impl AsyncFn() -> Result<Rc<Connection>, OpenError>,
    ) -> Result<Slot, OpenError> {
        let begun = Begun::new(self);
        match open().await {
            Ok(connection) => {
                // Even if the endpoint allows no stream: h2 then waits until it does.
                let slot = connection.enter();
                self.open.borrow_mut().push(connection);
                Ok(slot)
            }
            Err(error) => {
                let failed = match &error {
                    OpenError::Http1 => Failed::Http1,
                    OpenError::Full => Failed::Full,
                    OpenError::Io(error) => Failed::Io(error.kind()),
                };
                begun.opening.failed.set(Some(failed));
                Err(error)
            }
        }
    }
}

/// How many take no more streams and have some left to carry.
fn leaving(open: &[Rc<Connection>]) -> usize {
    open.iter().filter(|connection| connection.is_gone() && connection.streams() > 0).count()
}

/// Ends the opening for those who wait, also when its maker goes away.
struct Begun<'a> {
    pool: &'a Pool,
    opening: Rc<Opening>,
}

impl<'a> Begun<'a> {
    fn new(pool: &'a Pool) -> Self {
        let opening = Rc::<Opening>::default();
        *pool.opening.borrow_mut() = Some(Rc::clone(&opening));
        Self { pool, opening }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        *self.pool.opening.borrow_mut() = None;
        self.opening.over.notify_waiters();
    }
}
