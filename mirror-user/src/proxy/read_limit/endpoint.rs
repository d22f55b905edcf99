//! What connections to one shadow endpoint have in common: the worker's ticks, and how many were closed
//! for what they sent.

use std::{cell::Cell, rc::Rc};

use super::{ReadExceeded, WorkerReads};

/// The readers of one endpoint.
pub(in crate::proxy) struct EndpointReads {
    pub(super) worker: Rc<WorkerReads>,
    long: Cell<u32>,
    floods: Cell<u32>,
}

impl EndpointReads {
    pub(in crate::proxy) fn new(worker: &Rc<WorkerReads>) -> Rc<Self> {
        Rc::new(Self { worker: Rc::clone(worker), long: Cell::new(0), floods: Cell::new(0) })
    }

    pub(super) fn note(&self, exceeded: ReadExceeded) {
        let count = match exceeded {
            ReadExceeded::LongResponse => &self.long,
            ReadExceeded::Flood => &self.floods,
        };
        count.set(count.get() + 1);
    }

    /// Connections closed since the last call, for long responses and for floods.
    pub(in crate::proxy) fn take_closed(&self) -> (u32, u32) {
        (self.long.take(), self.floods.take())
    }
}
