//! Where objects come from: a folder or a cluster. In: the source's events. Out: states that
//! [`Control`] puts in force.

use std::time::Instant;

use tokio::sync::watch;

use super::{Control, Diagnostics, files, kube::Cluster, objects::Objects, publish::FrontendMap};
use crate::kube::Health;

/// A source that is followed.
#[derive(Debug)]
pub enum Source {
    /// A folder of YAML.
    Files(Box<Files>),
    /// The API server of a cluster.
    Cluster(Box<Cluster>),
}

/// A followed folder, and what it last said.
#[derive(Debug)]
pub struct Files {
    states: watch::Receiver<files::FolderState>,
    state: files::FolderState,
}

impl Files {
    /// What [`files::watch`] has made.
    #[must_use]
    pub fn new(mut states: watch::Receiver<files::FolderState>) -> Self {
        let state = states.borrow_and_update().clone();
        Self { states, state }
    }
}

impl Source {
    /// Waits until it has a new state. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        match self {
            Self::Files(files) => match files.states.changed().await {
                Ok(()) => files.state = files.states.borrow_and_update().clone(),
                // Its thread has ended, and said so.
                Err(_) => std::future::pending().await,
            },
            Self::Cluster(cluster) => cluster.changed().await,
        }
    }

    /// Puts in force what it said since the last call; nothing before it has said everything once.
    /// True if pods or their Namespaces may have changed.
    pub fn put_in_force<M: FrontendMap>(&mut self, control: &mut Control<M>, now: Instant) -> bool {
        match self {
            Self::Files(files) => {
                let state = &files.state;
                control.replace(&state.objects, state.diagnostics(), now);
                true
            }
            Self::Cluster(cluster) => cluster.put_in_force(control, now),
        }
    }

    /// Its current state.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        match self {
            Self::Files(files) => &files.state.objects,
            Self::Cluster(cluster) => cluster.objects(),
        }
    }

    /// What it has to say beside the objects.
    #[must_use]
    pub fn diagnostics(&self) -> Diagnostics {
        match self {
            Self::Files(files) => files.state.diagnostics(),
            Self::Cluster(cluster) => cluster.diagnostics(),
        }
    }

    /// How the watches fare, by kind; a folder has none.
    #[must_use]
    pub fn watches(&self) -> Vec<(&'static str, Health)> {
        match self {
            Self::Files(_) => Vec::new(),
            Self::Cluster(cluster) => cluster.watches(),
        }
    }
}
