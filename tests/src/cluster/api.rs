//! The API server's objects as JSON, for tests that write faster than kubectl starts. In: a path
//! of the API. Out: a status of HTTP and an object, by one kubectl that proxies as administrator.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::ControlPlane;
use crate::{
    node::Node,
    process::{Process, eventually},
};

const PORT: u16 = 8001;
const TIMEOUT: Duration = Duration::from_secs(10);

/// A way to the API server; may be shared between threads.
#[derive(Debug)]
pub struct Api<'a> {
    node: &'a Node,
    _proxy: Process,
}

impl<'a> Api<'a> {
    /// Starts the proxy, inside the node.
    ///
    /// # Errors
    /// It does not respond within 10 s.
    pub fn start(node: &'a Node, plane: &ControlPlane<'_>) -> Result<Self> {
        let kubectl = plane.binaries().path("kubectl");
        let config = plane.kubeconfig().to_string_lossy().into_owned();
        let port = PORT.to_string();
        let argv = [&*kubectl, "--kubeconfig", &config, "proxy", "--port", &port];
        let api = Self { node, _proxy: node.spawn("kubectl-proxy", &argv)? };
        eventually("kubectl proxy answers", TIMEOUT, || {
            api.get("/api/v1/namespaces/default").is_ok()
        })?;
        Ok(api)
    }

    /// Reads an object that must be there.
    ///
    /// # Errors
    /// No response, or another than 200.
    pub fn get(&self, path: &str) -> Result<Value> {
        match self.request("GET", path, "application/json", "")? {
            (200, object) => Ok(object),
            (status, object) => bail!("GET {path}: {status}: {object}"),
        }
    }

    /// Sends a merge patch (RFC 7396): the status, and the object or why not.
    ///
    /// # Errors
    /// No response.
    pub fn patch(&self, path: &str, patch: &Value) -> Result<(u16, Value)> {
        self.request("PATCH", path, "application/merge-patch+json", &patch.to_string())
    }

    /// Creates an object in the collection of a path: the status, and the object or why not.
    ///
    /// # Errors
    /// No response.
    pub fn post(&self, path: &str, object: &Value) -> Result<(u16, Value)> {
        self.request("POST", path, "application/json", &object.to_string())
    }

    /// Creates an object in a collection: the status, and the object or why not.
    ///
    /// # Errors
    /// No response.
    pub fn create(&self, path: &str, object: &Value) -> Result<(u16, Value)> {
        self.request("POST", path, "application/json", &object.to_string())
    }

    fn request(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<(u16, Value)> {
        // HTTP/1.0: the response is not chunked and ends with the connection.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let response = self.node.netns().enter(|| exchange(&head, body))?;
        let response = response.with_context(|| format!("{method} {path}"))?;
        let (head, body) = response.split_once("\r\n\r\n").context("no answer of HTTP")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.context("no status")?, serde_json::from_str(body).unwrap_or_default()))
    }
}

fn exchange(head: &str, body: &str) -> std::io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}
