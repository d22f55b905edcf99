//! The client. In: the environment. Out: a `kube::Client` that neither retries nor waits on its
//! own: [`super::Watch`] decides when to try again.

use std::time::Duration;

use ::kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, KubeconfigError},
};

use crate::error_chain::WithCauses;

/// Longest that connecting may take, TLS included: a server that is gone for good is asked again
/// by the backoff, not waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Set by the kubelet in every pod.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// Where the cluster is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// By the pod's environment and ServiceAccount.
    Pod,
    /// By KUBECONFIG, or else ~/.kube/config.
    Kubeconfig,
}

impl ConfigSource {
    /// KUBECONFIG if it is set, else the pod if this is one, else ~/.kube/config.
    #[must_use]
    pub fn find() -> Self {
        match std::env::var_os("KUBECONFIG").is_none() && Self::in_pod() {
            true => Self::Pod,
            false => Self::Kubeconfig,
        }
    }

    /// Whether this process runs in a pod of a cluster.
    #[must_use]
    pub fn in_pod() -> bool {
        std::env::var_os(IN_CLUSTER).is_some()
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// In a pod, and without what the kubelet puts there.
    #[error(
        "cannot read the pod's access to its API server: {}; \
         the pod needs a serviceAccountName and automountServiceAccountToken",
        WithCauses(.0.as_ref())
    )]
    Pod(#[source] Box<InClusterError>),
    /// Outside, and without a usable kubeconfig.
    #[error("cannot read the kubeconfig: {}; set KUBECONFIG to a readable file", WithCauses(.0.as_ref()))]
    Kubeconfig(#[source] Box<KubeconfigError>),
    /// Certificates or address are not usable.
    #[error("cannot make a client for {server}: {}", WithCauses(.source.as_ref()))]
    Unusable {
        /// The API server's URL.
        server: String,
        /// The library's own error.
        source: Box<::kube::Error>,
    },
}

impl ClientError {
    /// Stable name, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Pod(_) => "in_cluster",
            Self::Kubeconfig(_) => "kubeconfig",
            Self::Unusable { .. } => "unusable",
        }
    }
}

/// Makes a client. Nothing is sent yet, so a server that does not respond is no error here.
/// Must be called within a tokio runtime.
///
/// # Errors
/// If the environment does not describe a cluster; the text says what is missing.
pub async fn connect(source: ConfigSource) -> Result<Client, ClientError> {
    let config = match source {
        ConfigSource::Pod => {
            Config::incluster().map_err(|error| ClientError::Pod(Box::new(error)))?
        }
        ConfigSource::Kubeconfig => Config::from_kubeconfig(&KubeConfigOptions::default())
            .await
            .map_err(|error| ClientError::Kubeconfig(Box::new(error)))?,
    };
    build(config)
}

fn build(mut config: Config) -> Result<Client, ClientError> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.default_retry = false;
    let server = config.cluster_url.to_string();
    Client::try_from(config)
        .map_err(|source| ClientError::Unusable { server, source: Box::new(source) })
}
