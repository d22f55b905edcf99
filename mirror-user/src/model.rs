//! What Kubernetes objects say that more than one stage reads: names, the labels of mirror's own, and
//! rows of Pods and Namespaces. Made by [`crate::control::decode`]; plain data that depends on nothing.

#![forbid(unsafe_code)]

mod consent;
mod label;
mod name;
mod pod;

pub use self::{
    consent::{Consent, ENDPOINT_FRONTENDS, EXTERNAL_SHADOWS},
    label::{CAPTURE_ENDPOINTS, CaptureLabel, LABEL},
    name::{ObjectName, RouteKind, RouteName},
    pod::{CgroupClaim, Mesh, NamespaceRow, PodRow},
};
