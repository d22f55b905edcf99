//! The open connections of HTTP/1 to one shadow endpoint. In: connections as they open, idle and end, and
//! copies. Out: each copy to an idle connection, or behind those in flight on the connection that was
//! handed a copy last; back to the caller if none can carry it. It opens no connection, and no copy
//! waits in it.

use std::{
    cell::{Cell, RefCell},
    ops::Deref,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{copy::Copy, head::Http1Head, pooled_connection::PooledConnection};

/// How long nothing is pipelined to an endpoint that closed with copies in flight.
const ONE_BY_ONE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Http1Pool {
    pub(super) open: RefCell<Vec<Rc<PooledConnection>>>,
    /// Those of them that carry nothing.
    pub(super) idle: RefCell<Vec<Rc<PooledConnection>>>,
    /// The one that was handed a copy last, and may take more.
    current: RefCell<Option<Rc<PooledConnection>>>,
    /// A connection has carried more than one copy, and none since was closed after its first without
    /// a word.
    keeps_open: Cell<bool>,
    /// Until when nothing is pipelined, since the endpoint closed with copies in flight.
    unpipelined_until: Cell<Option<Instant>>,
}

impl Http1Pool {
    /// Hands the copy to a connection that can carry it now; returns it if there is none.
    pub(super) fn hand_over(&self, copy: Copy<Http1Head>, now: Instant) -> Option<Copy<Http1Head>> {
        if copy.head.pipelined
            && self.takes_more(now)
            && let Some(pooled) = &*self.current.borrow()
        {
            pooled.enqueue(copy, now);
            return None;
        }
        loop {
            let Some(pooled) = self.idle.borrow_mut().pop() else { return Some(copy) };
            if pooled.connection.is_quiet() {
                pooled.enqueue(copy, now);
                *self.current.borrow_mut() = Some(pooled);
                return None;
            }
            pooled.close();
        }
    }

    /// Whether a copy may be sent behind others on the current connection.
    pub(super) fn takes_more(&self, now: Instant) -> bool {
        self.current.borrow().as_ref().is_some_and(|pooled| self.may_pipeline(pooled, now))
    }

    /// The same of this connection.
    pub(super) fn may_pipeline(&self, pooled: &PooledConnection, now: Instant) -> bool {
        self.pipelines(now) && pooled.takes_more(now)
    }

    pub(super) fn pipelines(&self, now: Instant) -> bool {
        self.unpipelined_until.get().is_none_or(|until| now >= until)
    }

    /// The endpoint closed while more than one copy was in flight.
    pub(super) fn stop_pipelining(&self) {
        self.unpipelined_until.set(Some(Instant::now() + ONE_BY_ONE));
    }

    /// Whether a connection has proven that the endpoint does not close after each response, or has
    /// shown the opposite.
    pub(super) fn keeps_open(&self, keeps: bool) {
        self.keeps_open.set(keeps);
    }

    /// Whether a new connection may be taken for one that stays open.
    pub(super) fn is_known_to_keep_open(&self) -> bool {
        self.keeps_open.get()
    }

    /// A connection is open.
    pub(super) fn register(self: &Rc<Self>, pooled: Rc<PooledConnection>) -> PoolEntry {
        self.open.borrow_mut().push(Rc::clone(&pooled));
        PoolEntry { pool: Rc::clone(self), pooled }
    }

    /// A connection has nothing to carry.
    pub(super) fn release(&self, pooled: &Rc<PooledConnection>) {
        self.current.borrow_mut().take_if(|current| Rc::ptr_eq(current, pooled));
        self.idle.borrow_mut().push(Rc::clone(pooled));
    }

    /// An idle connection is over.
    pub(super) fn remove_idle(&self, pooled: &Rc<PooledConnection>) {
        self.idle.borrow_mut().retain(|idle| !Rc::ptr_eq(idle, pooled));
    }

    /// Connections that carry nothing.
    pub(super) fn idle(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Closes what has carried nothing for longer than `idle`, and marks those as timed out whose oldest copy
    /// has waited for longer than `response`.
    pub(super) fn sweep(&self, idle: Duration, response: Duration) {
        self.idle.borrow_mut().retain(|pooled| {
            let stays = pooled.age() <= idle;
            if !stays {
                pooled.close();
            }
            stays
        });
        for pooled in self.open.borrow().iter() {
            if !pooled.is_idle() && pooled.age() > response {
                pooled.set_timed_out();
            }
        }
    }
}

/// A connection that the pool may hand copies to, for as long as it lasts.
pub(super) struct PoolEntry {
    pool: Rc<Http1Pool>,
    pooled: Rc<PooledConnection>,
}

impl Deref for PoolEntry {
    type Target = Rc<PooledConnection>;

    fn deref(&self) -> &Rc<PooledConnection> {
        &self.pooled
    }
}

impl Drop for PoolEntry {
    fn drop(&mut self) {
        let Self { pool, pooled } = self;
        pool.open.borrow_mut().retain(|other| !Rc::ptr_eq(other, pooled));
        pool.remove_idle(pooled);
        pool.current.borrow_mut().take_if(|current| Rc::ptr_eq(current, pooled));
    }
}
