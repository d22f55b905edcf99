//! The private parts of the data path that `benches/hot.rs` measures. Only with the feature
//! `bench`; nothing else is to use it.

use http::{HeaderValue, request::Parts};

use crate::{proxy::Connected, route::ServicePort};

pub use crate::proxy::Tee;

/// Whether a request's head may be sent on, made fit for it.
pub fn prepare_request(head: &mut Parts, service: &ServicePort) -> bool {
    let address = ([10, 96, 0, 10], service.port).into();
    let to = Connected { service, address, namespace: &service.namespace };
    crate::proxy::prepare_request(head, to).is_ok()
}

/// The Host of a copy.
#[must_use]
pub fn shadow_host(host: &HeaderValue, suffix: &str) -> Option<HeaderValue> {
    crate::proxy::shadow_host(host, suffix)
}
