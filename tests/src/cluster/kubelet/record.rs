//! What is known of a container, as status and server read it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::Notify;

use super::launch::StartSpec;

/// A container's state.
#[derive(Clone, Debug)]
pub(super) enum State {
    Waiting { reason: &'static str, message: String },
    Running { since: Timestamp, pid: i32 },
    Terminated(Ended),
}

/// How a run of a container ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
    pub(super) id: String,
}

/// A container.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) image: String,
    /// Empty before the first run.
    pub(super) id: String,
    pub(super) state: State,
    pub(super) last: Option<Ended>,
    pub(super) restarts: u32,
    pub(super) ready: bool,
    pub(super) started: bool,
    /// How it was started, for exec.
    pub(super) launch: Option<StartSpec>,
}

/// The containers of a pod, in the order of its spec; notifies when one changes.
#[derive(Debug)]
pub(super) struct Records {
    records: Mutex<Vec<Record>>,
    pub(super) changed: Notify,
}

impl Records {
    pub(super) fn new<'a>(containers: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let record = |(name, image): (&str, &str)| Record {
            name: name.to_owned(),
            image: image.to_owned(),
            id: String::new(),
            state: State::Waiting { reason: "ContainerCreating", message: String::new() },
            last: None,
            restarts: 0,
            ready: false,
            started: false,
            launch: None,
        };
        Self { records: Mutex::new(containers.map(record).collect()), changed: Notify::new() }
    }

    /// Changes one, and notifies.
    pub(super) fn change(&self, index: usize, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.lock().get_mut(index) {
            change(record);
        }
        self.changed.notify_one();
    }

    /// Says of all that wait why they do.
    pub(super) fn wait(&self, reason: &'static str, message: &str) {
        for record in self.lock().iter_mut() {
            record.state = State::Waiting { reason, message: message.to_owned() };
        }
        self.changed.notify_one();
    }

    pub(super) fn all(&self) -> Vec<Record> {
        self.lock().clone()
    }

    pub(super) fn named(&self, name: &str) -> Option<Record> {
        self.lock().iter().find(|record| record.name == name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
