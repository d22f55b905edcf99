//! Envoy's configuration: a listener for each scenario, a cluster for its primary and for its shadow.
//! Statistics are on, as by default; there is no access log.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Program, Protocol, Scenario};

/// Writes the configuration; the command that starts Envoy with it.
///
/// # Errors
/// It cannot be written.
pub(super) fn prepare(
    program: Program,
    folder: &Path,
    envoy: &Path,
    scenarios: &[(u16, &Scenario)],
) -> Result<Vec<String>> {
    let istio = program == Program::EnvoyIstio;
    let listeners: Vec<_> =
        scenarios.iter().map(|(port, scenario)| listener(*port, scenario, istio)).collect();
    let clusters: Vec<_> =
        scenarios.iter().flat_map(|(_, scenario)| clusters(program, scenario)).collect();
    let admin_port = 9900 + program as u16;
    let configuration = json!({
        "admin": { "address": address([127, 0, 0, 1].into(), admin_port) },
        "static_resources": { "listeners": listeners, "clusters": clusters },
    });
    let file = folder.join("envoy.json");
    fs::write(&file, configuration.to_string()).with_context(|| file.display().to_string())?;
    let argv = [
        &*envoy.to_string_lossy(),
        "--config-path",
        &file.to_string_lossy(),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "error",
    ];
    Ok(argv.map(str::to_owned).to_vec())
}

fn address(ip: Ipv4Addr, port: u16) -> Value {
    json!({ "socket_address": { "address": ip.to_string(), "port_value": port } })
}

fn listener(port: u16, scenario: &Scenario, istio: bool) -> Value {
    let mut route = json!({ "cluster": scenario.name });
    if istio {
        // As Istio writes it for every route: no limit on the whole exchange.
        route["timeout"] = "0s".into();
    }
    if let Some(mirror) = scenario.mirror {
        route["request_mirror_policies"] = json!([{
            "cluster": scenario.shadow_name(),
            "runtime_fraction": {
                "default_value": { "numerator": mirror.percent, "denominator": "HUNDRED" },
            },
        }]);
    }
    let router = typed("extensions.filters.http.router.v3.Router", json!({}));
    let manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": scenario.name,
            "codec_type": "AUTO",
            "route_config": { "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": route }],
            }]},
            "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": router }],
        }),
    );
    let name = "envoy.filters.network.http_connection_manager";
    json!({
        "name": scenario.name,
        "address": address([127, 0, 0, 1].into(), port),
        "filter_chains": [{ "filters": [{ "name": name, "typed_config": manager }] }],
    })
}

fn clusters(program: Program, scenario: &Scenario) -> Vec<Value> {
    let shadow = scenario.mirror.map(|mirror| (scenario.shadow_name(), mirror.shadow));
    let all = [Some((scenario.name.clone(), scenario.primary)), shadow];
    let (istio, protocol) = (program == Program::EnvoyIstio, program.upstream(scenario));
    let cluster = |(name, ip): (String, Ipv4Addr)| {
        cluster(&name, SocketAddrV4::new(ip, protocol.port()), protocol, istio)
    };
    all.into_iter().flatten().map(cluster).collect()
}

fn cluster(name: &str, at: SocketAddrV4, protocol: Protocol, istio: bool) -> Value {
    let endpoint = json!({ "endpoint": { "address": address(*at.ip(), at.port()) } });
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
    });
    if istio {
        let most = u32::MAX;
        cluster["circuit_breakers"] = json!({ "thresholds": [{
            "max_connections": most,
            "max_pending_requests": most,
            "max_requests": most,
            "max_retries": most,
            "track_remaining": true,
        }]});
        cluster["connect_timeout"] = "10s".into();
    }
    if protocol == Protocol::Http2 {
        let options = typed(
            "extensions.upstreams.http.v3.HttpProtocolOptions",
            json!({ "explicit_http_config": { "http2_protocol_options": {} } }),
        );
        cluster["typed_extension_protocol_options"] =
            json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options });
    }
    cluster
}

fn typed(name: &str, mut value: Value) -> Value {
    value["@type"] = format!("type.googleapis.com/envoy.{name}").into();
    value
}
