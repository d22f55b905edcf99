//! Enrolment: which pods of this node are captured, and where they are. In: rows of Pods and
//! Namespaces. Out: for each pod a decision ([`decide`]), and for those to capture a cgroup. It
//! attaches nothing and enters no namespace: that is [`crate::capture`]'s.

mod wish;

pub use self::wish::{LABEL, Wish};
