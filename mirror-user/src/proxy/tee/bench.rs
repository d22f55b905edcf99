//! The way of a copy's body, for the micro-benches alone: frames go in as the primary takes them,
//! and come out as the shadow's connection asks for them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use super::{Budgets, body::CopyBody, budget::BackendBudget};
use crate::route::ServicePort;

/// Budgets of the default sizes, and a shadow backend's.
#[derive(Debug)]
pub struct Tee {
    budgets: Budgets,
    backend: Arc<BackendBudget>,
}

impl Default for Tee {
    fn default() -> Self {
        let budgets = Budgets::new(64 << 20, 64 << 20, 64 << 20);
        let service = ServicePort { namespace: "default".into(), name: "shadow".into(), port: 80 };
        let backend = budgets.backend(&service);
        Self { budgets, backend }
    }
}

impl Tee {
    /// Carries a copy's body of these frames from end to end: the bytes that arrived.
    #[must_use]
    pub fn run(&self, frames: &[Bytes]) -> usize {
        let (mut body, writer) =
            CopyBody::stream(self.budgets.copy_budget(Arc::clone(&self.backend)));
        let mut arrived = 0;
        let mut context = Context::from_waker(Waker::noop());
        for data in frames {
            if let Some(writer) = &writer {
                writer.frame(&Frame::data(data.clone()));
            }
            while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) {
                arrived += frame.data_ref().map_or(0, Bytes::len);
            }
        }
        if let Some(writer) = writer {
            writer.finish();
        }
        arrived
    }
}
