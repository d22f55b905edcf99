//! The Lease at the API server: the one narrow interface between an election and the API server.

use std::time::{Duration, SystemTime};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::api::{Api, ObjectMeta, PostParams};

use super::LeaseRecord;

use crate::error_chain::WithCauses;

/// A Lease and the version that a write must name.
#[derive(Clone, Debug)]
pub struct StoredLease {
    /// Its content.
    pub record: LeaseRecord,
    /// `metadata.resourceVersion`.
    pub version: String,
}

/// Why the Lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another one wrote meanwhile (409).
    #[error("another replica has written the Lease in the meantime")]
    Conflict,
    /// The server did not respond, or with another error.
    #[error("{0}")]
    Server(String),
}

/// Where the Lease is kept.
pub trait LeaseStore {
    /// Reads it; None if it does not exist.
    fn read(&self) -> impl Future<Output = Result<Option<StoredLease>, StoreError>>;

    /// Writes `record` with `renewTime` now, and `acquireTime` now as well if `taken`: over the
    /// version `over`, or as a new one.
    fn write(
        &self,
        record: LeaseRecord,
        taken: bool,
        over: Option<&str>,
    ) -> impl Future<Output = Result<StoredLease, StoreError>>;
}

/// A Lease of the cluster.
#[derive(Clone, Debug)]
pub struct ClusterLease {
    api: Api<Lease>,
    name: String,
}

impl ClusterLease {
    /// Names a Lease; it need not exist.
    #[must_use]
    pub fn new(client: kube::Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.into() }
    }

    /// Removes it; true when there was one.
    ///
    /// # Errors
    /// The server's error, or that it cannot be reached.
    pub async fn delete(&self) -> Result<bool, StoreError> {
        match self.api.delete(&self.name, &kube::api::DeleteParams::default()).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(StoreError::from(&error)),
        }
    }
}

impl LeaseStore for ClusterLease {
    async fn read(&self) -> Result<Option<StoredLease>, StoreError> {
        let lease = self.api.get_opt(&self.name).await;
        lease.map(|lease| lease.map(stored)).map_err(|error| StoreError::from(&error))
    }

    async fn write(
        &self,
        record: LeaseRecord,
        taken: bool,
        over: Option<&str>,
    ) -> Result<StoredLease, StoreError> {
        let now = MicroTime(now());
        let acquired = if taken { None } else { record.stamps.0.parse().ok() };
        let seconds = i32::try_from(record.duration.as_secs()).unwrap_or(i32::MAX);
        let spec = LeaseSpec {
            holder_identity: Some(record.holder),
            lease_duration_seconds: Some(seconds),
            lease_transitions: Some(record.transitions),
            acquire_time: Some(acquired.map_or_else(|| now.clone(), MicroTime)),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            resource_version: over.map(str::to_owned),
            ..ObjectMeta::default()
        };
        let lease = Lease { metadata, spec: Some(spec) };
        let written = match over {
            Some(_) => self.api.replace(&self.name, &PostParams::default(), &lease).await,
            None => self.api.create(&PostParams::default(), &lease).await,
        };
        written.map(stored).map_err(|error| StoreError::from(&error))
    }
}

impl From<&kube::Error> for StoreError {
    fn from(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            error => Self::Server(WithCauses(error).to_string()),
        }
    }
}

fn now() -> Timestamp {
    // A wall clock outside of the years that a timestamp can say is no clock.
    Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn stored(lease: Lease) -> StoredLease {
    let spec = lease.spec.unwrap_or_default();
    let fingerprint =
        |time: Option<MicroTime>| time.map(|time| time.0.to_string()).unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    let record = LeaseRecord {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        transitions: spec.lease_transitions.unwrap_or_default(),
        stamps: (fingerprint(spec.acquire_time), fingerprint(spec.renew_time)),
    };
    StoredLease { record, version: lease.metadata.resource_version.unwrap_or_default() }
}
