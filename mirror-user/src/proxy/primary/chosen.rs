//! Endpoints that mirror chose for connections of clients, in one worker. A connection to one that its
//! backend loses is ended: its server may have gone without a word, and nobody else would notice. (One
//! that is not ready, or is terminating, is no loss: it may still have something to say.)

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
};

use crate::{
    proxy::client_socket::ClientSocket,
    route::{Backend, FrontendState, ServicePort, Snapshot},
};

#[derive(Default)]
pub(super) struct ChosenEndpoints {
    entries: RefCell<Vec<Entry>>,
    /// Of the routes that they were compared with.
    generation: Cell<u64>,
}

struct Entry {
    client: Weak<ClientSocket>,
    service: Arc<ServicePort>,
    endpoint: SocketAddr,
}

impl ChosenEndpoints {
    /// This client got this endpoint.
    pub(super) fn add(
        &self,
        client: &Rc<ClientSocket>,
        service: &Arc<ServicePort>,
        endpoint: SocketAddr,
    ) {
        let mut entries = self.entries.borrow_mut();
        if entries.len() == entries.capacity() {
            entries.retain(|entry| entry.client.strong_count() > 0);
        }
        let (client, service) = (Rc::downgrade(client), Arc::clone(service));
        entries.push(Entry { client, service, endpoint });
    }

    /// Ends connections to endpoints that their backends have lost, once for each publication of
    /// routes.
    pub(super) fn sweep(&self, routes: &Snapshot) {
        let mut entries = self.entries.borrow_mut();
        if self.generation.replace(routes.generation) == routes.generation || entries.is_empty() {
            return;
        }
        let backends = backends(routes);
        entries.retain(|entry| {
            let Some(client) = entry.client.upgrade() else { return false };
            let lost = backends.get(&*entry.service).is_some_and(|b| b.has_lost(entry.endpoint));
            if lost {
                client.shut_down(entry.endpoint);
            }
            !lost
        });
    }
}

/// All backends of all rules.
fn backends(routes: &Snapshot) -> HashMap<&ServicePort, &Backend> {
    let live = routes.frontends.values().filter_map(|lookup| match lookup {
        FrontendState::Live(frontend) => Some(frontend),
        FrontendState::Tombstone(_) => None,
    });
    let tables = live.flat_map(|at| at.producer.iter().chain(at.consumers.values()));
    let rules = tables.flat_map(|table| table.entries().map(|(_, rule)| rule));
    let targets = rules.flat_map(|rule| rule.backends.refs()).flat_map(|entry| &entry.target);
    targets.map(|backend| (&*backend.service, &**backend)).collect()
}
