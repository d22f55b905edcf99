//! Traefik's configuration: an entry point, a router and a service for each scenario. Its metrics
//! (Prometheus) are on; there is no access log.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{Protocol, Scenario};

/// Writes the configuration; the command that starts Traefik with it.
///
/// # Errors
/// It cannot be written.
pub(super) fn prepare(
    folder: &Path,
    traefik: &Path,
    scenarios: &[(u16, &Scenario)],
) -> Result<Vec<String>> {
    // JSON is YAML, and Traefik goes by the name's end.
    let (fixed, dynamic) = (folder.join("traefik.yaml"), folder.join("lanes.yaml"));
    let mut entries: Map<_, _> =
        scenarios.iter().map(|(port, scenario)| entry(*port, scenario)).collect();
    entries.insert("traefik".into(), json!({ "address": "127.0.0.1:9998" }));
    let configuration = json!({
        "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
        "log": { "level": "ERROR" },
        "metrics": { "prometheus": {} },
        "entryPoints": entries,
        "providers": { "file": { "filename": dynamic, "watch": false } },
    });
    let routers: Map<_, _> = scenarios.iter().map(|(_, scenario)| router(scenario)).collect();
    let services: Map<_, _> =
        scenarios.iter().flat_map(|(_, scenario)| services(scenario)).collect();
    let scenarios = json!({ "http": { "routers": routers, "services": services } });
    for (file, text) in [(&fixed, configuration), (&dynamic, scenarios)] {
        fs::write(file, text.to_string()).with_context(|| file.display().to_string())?;
    }
    let flag = format!("--configFile={}", fixed.display());
    Ok(vec![traefik.to_string_lossy().into_owned(), flag])
}

fn entry(port: u16, scenario: &Scenario) -> (String, Value) {
    (scenario.name.clone(), json!({ "address": format!("127.0.0.1:{port}") }))
}

fn router(scenario: &Scenario) -> (String, Value) {
    let name = &scenario.name;
    let rule = json!({ "rule": "PathPrefix(`/`)", "entryPoints": [name], "service": name });
    (name.clone(), rule)
}

fn services(scenario: &Scenario) -> Vec<(String, Value)> {
    let name = &scenario.name;
    let server = |ip: Ipv4Addr| {
        let at = SocketAddrV4::new(ip, scenario.protocol.port());
        let scheme = if scenario.protocol == Protocol::Http2 { "h2c" } else { "http" };
        json!({ "loadBalancer": { "servers": [{ "url": format!("{scheme}://{at}") }] } })
    };
    let Some(mirror) = scenario.mirror else {
        return vec![(name.clone(), server(scenario.primary))];
    };
    let (primary, shadow) = (format!("primary-{name}"), scenario.shadow_name());
    let mirroring = json!({ "mirroring": {
        "service": primary,
        "mirrors": [{ "name": shadow, "percent": mirror.percent }],
    }});
    vec![
        (primary, server(scenario.primary)),
        (shadow, server(mirror.shadow)),
        (name.clone(), mirroring),
    ]
}
