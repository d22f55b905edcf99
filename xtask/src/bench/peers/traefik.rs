//! Traefik's configuration: an entry point, a router and a service for each lane. Its metrics
//! (Prometheus) are on; there is no access log.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{Lane, Protocol};

/// Writes the configuration; the command that starts Traefik with it.
///
/// # Errors
/// It cannot be written.
pub(super) fn prepare(
    folder: &Path,
    traefik: &Path,
    lanes: &[(u16, &Lane)],
) -> Result<Vec<String>> {
    // JSON is YAML, and Traefik goes by the name's end.
    let (fixed, dynamic) = (folder.join("traefik.yaml"), folder.join("lanes.yaml"));
    let mut entries: Map<_, _> = lanes.iter().map(|(port, lane)| entry(*port, lane)).collect();
    entries.insert("traefik".into(), json!({ "address": "127.0.0.1:9998" }));
    let configuration = json!({
        "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
        "log": { "level": "ERROR" },
        "metrics": { "prometheus": {} },
        "entryPoints": entries,
        "providers": { "file": { "filename": dynamic, "watch": false } },
    });
    let routers: Map<_, _> = lanes.iter().map(|(_, lane)| router(lane)).collect();
    let services: Map<_, _> = lanes.iter().flat_map(|(_, lane)| services(lane)).collect();
    let lanes = json!({ "http": { "routers": routers, "services": services } });
    for (file, text) in [(&fixed, configuration), (&dynamic, lanes)] {
        fs::write(file, text.to_string()).with_context(|| file.display().to_string())?;
    }
    let flag = format!("--configFile={}", fixed.display());
    Ok(vec![traefik.to_string_lossy().into_owned(), flag])
}

fn entry(port: u16, lane: &Lane) -> (String, Value) {
    (lane.name.clone(), json!({ "address": format!("127.0.0.1:{port}") }))
}

fn router(lane: &Lane) -> (String, Value) {
    let name = &lane.name;
    let rule = json!({ "rule": "PathPrefix(`/`)", "entryPoints": [name], "service": name });
    (name.clone(), rule)
}

fn services(lane: &Lane) -> Vec<(String, Value)> {
    let name = &lane.name;
    let server = |ip: Ipv4Addr| {
        let at = SocketAddrV4::new(ip, lane.protocol.port());
        let scheme = if lane.protocol == Protocol::Http2 { "h2c" } else { "http" };
        json!({ "loadBalancer": { "servers": [{ "url": format!("{scheme}://{at}") }] } })
    };
    let Some(mirror) = lane.mirror else { return vec![(name.clone(), server(lane.primary))] };
    let (primary, shadow) = (format!("primary-{name}"), lane.shadow_name());
    let mirroring = json!({ "mirroring": {
        "service": primary,
        "mirrors": [{ "name": shadow, "percent": mirror.percent }],
    }});
    vec![
        (primary, server(lane.primary)),
        (shadow, server(mirror.shadow)),
        (name.clone(), mirroring),
    ]
}
