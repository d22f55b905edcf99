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
#[derive(Default)]
pub(in crate::proxy) struct Pool {
    open: RefCell<Vec<Rc<Connection>>>,
    opening: RefCell<Option<Rc<Opening>>>,
    /// Streams that a connection carries in its life; any number.
    life: Option<u64>,
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
    /// Whose connections carry so many streams and are then replaced.
    pub(in crate::proxy) fn with_life(life: u64) -> Self {
        Self { life: Some(life), ..Self::default() }
    }

    /// Room for one stream. `open` makes a connection, if there are fewer than `most`.
    ///
    /// # Errors
    /// What `open` says, to all who wait for that connection; or there are `most`.
    pub(in crate::proxy) async fn slot(
        &self,
        most: usize,
        open: impl AsyncFn() -> Result<Rc<Connection>, OpenError>,
    ) -> Result<Slot, OpenError> {
        loop {
            if let Some(slot) = self.find() {
                return Ok(slot);
            }
            let waiting = self.opening.borrow().clone();
            let Some(opening) = waiting else {
                self.sweep(Duration::MAX);
                return if self.len() < most { self.add(open).await } else { Err(OpenError::Full) };
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
        let connection = slot.connection();
        if self.life.is_some_and(|life| connection.entered() >= life) {
            connection.retire();
        }
        Some(slot)
    }

    /// Whether a connection is being opened.
    pub(in crate::proxy) fn is_opening(&self) -> bool {
        self.opening.borrow().is_some()
    }

    /// Connections that take streams, or are being opened.
    pub(in crate::proxy) fn len(&self) -> usize {
        let open = self.open.borrow().iter().filter(|connection| !connection.is_gone()).count();
        open + usize::from(self.opening.borrow().is_some())
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
