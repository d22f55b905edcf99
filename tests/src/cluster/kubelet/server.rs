//! The node's own API, on port 10250: what the API server asks a kubelet for.
//!
//! In: HTTPS requests from the API server, which must show its certificate. Out: logs of
//! containers, and commands executed in them. Everything else gets 404.

mod exec;
mod logs;

use std::{
    collections::HashMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

use super::{Context, SERVER_PORT, record::Records};
use crate::namespace::inside;

/// A body of a response.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What the server knows of a pod.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) records: Arc<Records>,
    pub(super) folder: PathBuf,
}

/// The pods of the node, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<HashMap<(String, String), Known>>);

impl Registry {
    pub(super) fn add(&self, namespace: &str, name: &str, known: Known) {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, known);
    }

    /// Forgets a pod, unless another one has its name by now.
    pub(super) fn forget(&self, namespace: &str, name: &str, records: &Arc<Records>) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pods.get(&key).is_some_and(|known| Arc::ptr_eq(&known.records, records)) {
            pods.remove(&key);
        }
    }

    fn find(&self, namespace: &str, name: &str) -> Option<Known> {
        let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pods.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
}

/// The open port and who may call.
pub(super) struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    /// The only certificate that is let in.
    client: CertificateDer<'static>,
}

impl Server {
    /// Opens the port inside the node, with the certificates of the folder `pki`.
    pub(super) fn bind(context: &Context, pki: &Path) -> Result<Self> {
        let certificate = |name: &str| {
            CertificateDer::from_pem_file(pki.join(name)).with_context(|| name.to_owned())
        };
        let key = PrivateKeyDer::from_pem_slice(&fs::read(pki.join("node.key"))?)?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.crt")?)?;
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate("node.crt")?], key)?;
        let address = (context.node_ip, SERVER_PORT);
        let listener = inside(&context.netns, || TcpListener::bind(address))?;
        let listener = listener.context("the node's port")?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            client: certificate("apiserver-kubelet-client.crt")?,
        })
    }

    /// Serves forever.
    pub(super) async fn serve(self, registry: Arc<Registry>) -> Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (acceptor, client) = (self.acceptor.clone(), self.client.clone());
            let registry = Arc::clone(&registry);
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                if shown != Some(&client) {
                    // Another client of this cluster's CA.
                    return;
                }
                let service = hyper::service::service_fn(move |request| {
                    let registry = Arc::clone(&registry);
                    async move { Ok::<_, std::convert::Infallible>(answer(&registry, request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                let _ = connection.with_upgrades().await;
            });
        }
    }
}

async fn answer(registry: &Registry, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let mut parts = path.trim_matches('/').split('/');
    let (kind, [namespace, pod, container]) =
        (parts.next().unwrap_or_default(), [(); 3].map(|()| parts.next().unwrap_or_default()));
    let Some(known) = registry.find(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, &format!("no pod {namespace}/{pod} on this node"));
    };
    let Some(record) = known.records.named(container) else {
        return text(StatusCode::NOT_FOUND, &format!("no container {container} in {pod}"));
    };
    let query = Query::parse(request.uri().query().unwrap_or_default());
    match kind {
        "containerLogs" => logs::response(&known, &record, &query).await,
        "exec" => exec::answer(&record, &query, request),
        _ => text(StatusCode::NOT_FOUND, "this node serves containerLogs and exec"),
    }
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(format!("{message}\n"))).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}

/// A query's parameters, decoded, in order.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(name, value)| (decode(name), decode(value))).collect())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// As Go reads a boolean.
    fn is(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "true" | "True"))
    }
}

fn decode(text: &str) -> String {
    let mut decoded = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let digits = [bytes.next(), bytes.next()].map(|digit| digit.unwrap_or(b'?'));
                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                decoded.push(u8::from_str_radix(digits, 16).unwrap_or(b'?'));
            }
            byte => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_keeps_the_order_of_what_is_repeated() {
        let query = Query::parse("command=sh&command=-c&command=echo+%24x&stdin=1&tty=0");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "echo $x"]);
        assert!(query.is("stdin") && !query.is("tty"));
    }
}
