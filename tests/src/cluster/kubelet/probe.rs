//! Probes: httpGet and tcpSocket, from the node as kubelet sends them.
//!
//! In: a container's three probes. Out: whether it has started and is ready, in its record; the
//! end of this task when liveness (or startup) says that the container must be restarted.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::time::sleep;

use super::record::Records;
use crate::namespace::inside;

/// Whom to ask.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The node's namespace: probes come from kubelet.
    pub(super) netns: PathBuf,
    pub(super) ip: IpAddr,
}

/// Runs a container's probes until one says that it must be restarted.
pub(super) async fn run(target: Target, container: Container, records: &Records, index: usize) {
    if let Some(probe) = &container.startup_probe
        && !until_success(&target, &container, probe).await
    {
        return;
    }
    let ready = container.readiness_probe.is_none();
    records.change(index, |record| {
        record.started = true;
        record.ready = ready;
    });
    let liveness = async {
        match &container.liveness_probe {
            Some(probe) => until_failure(&target, &container, probe).await,
            None => std::future::pending().await,
        }
    };
    let readiness = async {
        match &container.readiness_probe {
            Some(probe) => watch(&target, &container, probe, records, index).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = liveness => {}
        () = readiness => {}
    }
}

/// The startup probe: false when it has failed too often.
async fn until_success(target: &Target, container: &Container, probe: &Probe) -> bool {
    sleep(seconds(probe.initial_delay_seconds, 0)).await;
    for _ in 0..probe.failure_threshold.unwrap_or(3) {
        if ask(target, container, probe).await.is_ok() {
            return true;
        }
        sleep(seconds(probe.period_seconds, 10)).await;
    }
    false
}

/// The liveness probe: returns when it has failed too often in a row.
async fn until_failure(target: &Target, container: &Container, probe: &Probe) {
    sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let mut failures = 0;
    while failures < probe.failure_threshold.unwrap_or(3) {
        sleep(seconds(probe.period_seconds, 10)).await;
        let response = ask(target, container, probe).await;
        failures = if response.is_ok() { 0 } else { failures + 1 };
    }
}

/// The readiness probe, forever.
async fn watch(
    target: &Target,
    container: &Container,
    probe: &Probe,
    records: &Records,
    index: usize,
) {
    sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let (mut successes, mut failures) = (0, 0);
    let mut ready = false;
    loop {
        match ask(target, container, probe).await {
            Ok(()) => (successes, failures) = (successes + 1, 0),
            Err(_) => (successes, failures) = (0, failures + 1),
        }
        let now = match ready {
            false => successes >= probe.success_threshold.unwrap_or(1),
            true => failures < probe.failure_threshold.unwrap_or(3),
        };
        if now != ready {
            ready = now;
            records.change(index, |record| record.ready = ready);
        }
        sleep(seconds(probe.period_seconds, 10)).await;
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
}

async fn ask(target: &Target, container: &Container, probe: &Probe) -> Result<()> {
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let netns = target.netns.clone();
    if let Some(http) = &probe.http_get {
        let ip = match &http.host {
            Some(host) if !host.is_empty() => host.parse().context("httpGet.host is no address")?,
            _ => target.ip,
        };
        let address = SocketAddr::new(ip, port(container, &http.port)?);
        let head = head(http, address);
        tokio::task::spawn_blocking(move || inside(&netns, || get(address, &head, timeout))?)
            .await?
    } else if let Some(tcp) = &probe.tcp_socket {
        let address = SocketAddr::new(target.ip, port(container, &tcp.port)?);
        let connect = move || {
            inside(&netns, || TcpStream::connect_timeout(&address, timeout))?.context("refused")
        };
        tokio::task::spawn_blocking(connect).await?.map(drop)
    } else {
        bail!("this node has httpGet and tcpSocket probes");
    }
}

/// A number, or the name of one of the container's ports.
fn port(container: &Container, port: &IntOrString) -> Result<u16> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port)
        }
    };
    let number = number.and_then(|number| u16::try_from(number).ok());
    number.with_context(|| format!("no port {port:?}"))
}

fn head(http: &HTTPGetAction, address: SocketAddr) -> String {
    let path = http.path.as_deref().unwrap_or("/");
    let headers = http.http_headers.iter().flatten();
    let headers: String =
        headers.map(|header| format!("{}: {}\r\n", header.name, header.value)).collect();
    format!(
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nUser-Agent: kube-probe/1.36\r\n{headers}\r\n"
    )
}

/// Success is a status of 200 to 399.
fn get(address: SocketAddr, head: &str, timeout: Duration) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(head.as_bytes())?;
    let mut response = [0; 12];
    stream.read_exact(&mut response)?;
    let status = response.get(9..).and_then(|code| std::str::from_utf8(code).ok());
    let status: u16 = status.and_then(|code| code.parse().ok()).context("no HTTP answer")?;
    if !(200..400).contains(&status) {
        bail!("answered with {status}");
    }
    Ok(())
}
