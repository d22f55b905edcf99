//! `--capture [NAMESPACE/]NAME=CGROUP`: which workload, and what it counts as; names of objects.

use std::str::FromStr;

use crate::{
    capture::{WorkloadConfig, WorkloadOrigin},
    model::ObjectName,
};

/// The Namespace of a workload that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// What is wrong with a `--capture`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureArgError {
    /// No `=`.
    #[error(
        "missing '=': write [NAMESPACE/]NAME=CGROUP, for example shop/curl=/sys/fs/cgroup/system.slice/curl.service"
    )]
    NoCgroup,
    /// Nothing before the `=`.
    #[error("the name before '=' is empty: write [NAMESPACE/]NAME=CGROUP")]
    EmptyName,
    /// A `/` with nothing before it.
    #[error("the Namespace before '/' is empty: leave out the '/' for \"default\"")]
    EmptyNamespace,
    /// Not a DNS name of Kubernetes.
    #[error(
        "{what} {name:?} is not a Kubernetes name: lower-case letters, digits, '-' (and '.' in a name), letter or digit first and last, at most {most} characters"
    )]
    Name {
        /// "the Namespace" or "the name".
        what: &'static str,
        /// As given.
        name: String,
        /// Most characters.
        most: usize,
    },
    /// A relative path.
    #[error(
        "the cgroup {0:?} is not an absolute path, such as /sys/fs/cgroup/system.slice/curl.service"
    )]
    RelativeCgroup(String),
}

impl FromStr for WorkloadConfig {
    type Err = CaptureArgError;

    fn from_str(text: &str) -> Result<Self, CaptureArgError> {
        let (workload, cgroup) = text.split_once('=').ok_or(CaptureArgError::NoCgroup)?;
        let (namespace, name) = match workload.split_once('/') {
            Some(("", _)) => return Err(CaptureArgError::EmptyNamespace),
            Some(parts) => parts,
            None => (DEFAULT_NAMESPACE, workload),
        };
        if name.is_empty() {
            return Err(CaptureArgError::EmptyName);
        }
        check("the Namespace", namespace, 63, false)?;
        check("the name", name, 253, true)?;
        if !cgroup.starts_with('/') {
            return Err(CaptureArgError::RelativeCgroup(cgroup.into()));
        }
        let (namespace, name, cgroup) = (namespace.into(), name.into(), cgroup.into());
        Ok(Self { namespace, name, cgroup, origin: WorkloadOrigin::Flag })
    }
}

/// A Namespace without a name after it.
pub(crate) fn namespace(text: &str) -> Result<String, CaptureArgError> {
    check("the Namespace", text, 63, false).map(|()| text.to_owned())
}

/// The name of an object: `[NAMESPACE/]NAME`.
pub(crate) fn object_name(text: &str) -> Result<ObjectName, CaptureArgError> {
    let (namespace, name) = text.split_once('/').unwrap_or((DEFAULT_NAMESPACE, text));
    check("the Namespace", namespace, 63, false)?;
    check("the name", name, 253, true)?;
    Ok(ObjectName { namespace: namespace.into(), name: name.into() })
}

/// RFC 1123 label (Namespace) or subdomain (name), as Kubernetes has them.
fn check(what: &'static str, name: &str, most: usize, dots: bool) -> Result<(), CaptureArgError> {
    let end = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let bytes = name.as_bytes();
    let inner =
        bytes.iter().all(|byte| end(Some(byte)) || *byte == b'-' || (dots && *byte == b'.'));
    if inner && end(bytes.first()) && end(bytes.last()) && bytes.len() <= most {
        return Ok(());
    }
    Err(CaptureArgError::Name { what, name: name.into(), most })
}
