//! The Node object and its Lease: that the node is there, what it can do, and that it lives.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Node,
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{Context, SERVER_PORT, now};

/// As kubelet renews it; the API server's node controller waits 40 s for the next.
const RENEWAL: Duration = Duration::from_secs(10);

/// Makes the Node object and its Lease, Ready from the first on.
pub(super) async fn register(context: &Context) -> Result<()> {
    let nodes: Api<Node> = Api::all(context.client.clone());
    let node = serde_json::from_value(object(context))?;
    match nodes.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error).context("creating the Node object"),
    }
    // As raw JSON: `declaredFeatures` is younger than the types.
    let status = Patch::Strategic(status(context));
    let params = PatchParams::default();
    nodes.patch_status(&context.node_name, &params, &status).await.context("the Node's status")?;
    renew(context).await
}

/// Renews the Lease forever, and the Node's status with it.
pub(super) async fn heartbeats(context: Arc<Context>) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        // The API server may be away: the next one comes soon, as kubelet's does.
        if let Err(error) = register(&context).await {
            eprintln!("{}: heartbeat: {error:#}", context.node_name);
        }
    }
}

async fn renew(context: &Context) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(context.client.clone(), "kube-node-lease");
    let lease = Lease {
        metadata: kube::core::ObjectMeta {
            name: Some(context.node_name.clone()),
            ..Default::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(context.node_name.clone()),
            lease_duration_seconds: Some(40),
            renew_time: Some(MicroTime(now())),
            ..LeaseSpec::default()
        }),
    };
    let patch = Patch::Merge(&lease);
    match leases.patch(&context.node_name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            leases.create(&PostParams::default(), &lease).await.context("creating the Lease")?;
            Ok(())
        }
        result => result.map(drop).context("renewing the Lease"),
    }
}

fn object(context: &Context) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": context.node_name,
            "labels": {
                "kubernetes.io/arch": arch(),
                "kubernetes.io/hostname": context.node_name,
                "kubernetes.io/os": "linux",
            },
        },
    })
}

fn status(context: &Context) -> Value {
    let resources = json!({
        "cpu": "16", "memory": "32Gi", "pods": "1000", "ephemeral-storage": "100Gi",
    });
    let time = now();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": "",
            "lastHeartbeatTime": time, "lastTransitionTime": time,
        })
    };
    json!({"status": {
        "addresses": [
            {"type": "InternalIP", "address": context.node_ip},
            {"type": "Hostname", "address": context.node_name},
        ],
        "capacity": resources,
        "allocatable": resources,
        "conditions": [
            condition("MemoryPressure", "False", "Enough"),
            condition("DiskPressure", "False", "Enough"),
            condition("PIDPressure", "False", "Enough"),
            condition("Ready", "True", "TestNodeReady"),
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": SERVER_PORT}},
        // So that exec comes as WebSocket, and SPDY is not needed.
        "declaredFeatures": ["ExtendWebSocketsToKubelet"],
        "nodeInfo": {
            "architecture": arch(),
            "bootID": "", "machineID": "", "systemUUID": "",
            "containerRuntimeVersion": "processes://1",
            "kernelVersion": kernel(),
            "kubeProxyVersion": "",
            "kubeletVersion": "v1.36.3",
            "operatingSystem": "linux",
            "osImage": "mirror's test node",
        },
    }})
}

fn kernel() -> String {
    let release = nix::sys::utsname::uname();
    release.map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// As Go names it.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
