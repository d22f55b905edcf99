//! Pods, as far as their selection reads them. Unlike those of routes, unknown fields are
//! ignored, because the rest of a Pod does not matter here.

use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::Value;

use super::{DecodeFault, Decoded, Metadata, Path, fault::fail, object_name};
use crate::{
    control::objects::Object,
    model::{CaptureLabel, CgroupClaim, Mesh, PodRow},
};

/// Of a static pod's mirror: the uid that kubelet knows the pod by, and names its cgroup after
/// (pkg/kubelet/types/pod_update.go, ConfigHashAnnotationKey; the API's own uid is another).
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Says that the Pod is such a mirror (ConfigMirrorAnnotationKey), and repeats the hash.
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// How long a hash may be: kubelet's are of 32 digits, uids of 36.
const HASH: RangeInclusive<usize> = 16..=64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    host_network: bool,
    node_name: String,
    service_account_name: String,
    runtime_class_name: Option<String>,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Deserialize)]
struct PodIp {
    #[serde(default)]
    ip: String,
}

/// Whether a cluster has made it: a template that a user wrote has no uid.
pub(super) fn is_of_a_cluster(document: &Value) -> bool {
    document.pointer("/metadata/uid").and_then(Value::as_str).is_some_and(|uid| !uid.is_empty())
}

pub(super) fn decode(document: Value) -> Decoded<Object> {
    let mut track = serde_path_to_error::Track::new();
    let pod = Pod::deserialize(serde_path_to_error::Deserializer::new(document, &mut track));
    let pod = pod.map_err(|error: serde_json::Error| {
        (Path(track.path().to_string()), DecodeFault::Malformed(error.to_string()))
    })?;
    let annotation = |key: &str| pod.metadata.annotations.as_ref().and_then(|all| all.get(key));
    let Some(uid) = pod.metadata.uid.clone() else {
        return fail("metadata.uid", DecodeFault::Missing("every Pod of a cluster"));
    };
    let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let names: Vec<_> = containers.map(|container| container.name.as_str()).collect();
    Ok(Object::Pod(PodRow {
        name: object_name(&pod.metadata)?,
        claim: claim(&pod),
        uid: uid.into(),
        label: CaptureLabel::of(pod.metadata.labels.as_ref()),
        host_network: pod.spec.host_network,
        mesh: Mesh::ALL.into_iter().find(|mesh| {
            names.iter().any(|name| mesh.containers().contains(name))
                || mesh.annotations().iter().any(|(key, value)| {
                    annotation(key).is_some_and(|has| value.is_none_or(|value| has == value))
                })
        }),
        runtime_class: pod.spec.runtime_class_name.map(Into::into),
        ended: matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed")),
        ips: pod.status.pod_ips.iter().filter_map(|pod| pod.ip.parse().ok()).collect(),
    }))
}

/// What the Pod says of its cgroup. The shape is that of `CreateMirrorPod()` in
/// pkg/kubelet/pod/mirror_client.go and `applyDefaults()` in pkg/kubelet/config/common.go; it proves
/// nothing, because anybody who may create Pods can write it.
fn claim(pod: &Pod) -> CgroupClaim {
    let Pod { metadata, spec, .. } = pod;
    let annotation = |key| metadata.annotations.as_ref().and_then(|all| all.get(key));
    let Some(mirror) = annotation(CONFIG_MIRROR) else { return CgroupClaim::Uid };
    let Some(hash) = annotation(CONFIG_HASH).filter(|hash| *hash == mirror) else {
        return CgroupClaim::Misshapen(
            "its annotations config.hash and config.mirror are not the same",
        );
    };
    let digits = hash.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if !digits || !HASH.contains(&hash.len()) {
        return CgroupClaim::Misshapen("its hash does not consist of 16 to 64 hexadecimal digits");
    }
    let name = metadata.name.as_deref().unwrap_or_default();
    let (node, own) = (&spec.node_name, name.strip_suffix(&*spec.node_name));
    if node.is_empty() || !own.is_some_and(|own| own.ends_with('-')) {
        return CgroupClaim::Misshapen("its name does not end in that of its node");
    }
    let mut owners = metadata.owner_references.iter().flatten();
    if !owners.any(|owner| owner.kind == "Node" && owner.name == *node) {
        return CgroupClaim::Misshapen("it is not owned by its Node");
    }
    if !spec.service_account_name.is_empty() {
        return CgroupClaim::Misshapen("it has a ServiceAccount, and static pods have none");
    }
    CgroupClaim::Hash(hash.as_str().into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::decode;

    fn row(pod: Value) -> PodRow {
        let mut pod = pod;
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        match decode::decode(pod).unwrap() {
            Object::Pod(row) => row,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_row_has_what_the_selection_reads_and_nothing_else() {
        let row = row(json!({
            "metadata": {"name": "a", "namespace": "shop", "uid": "0a1b",
                "labels": {"mirror.dev/capture": "disabled"},
                "annotations": {"kubernetes.io/config.hash": "not a mirror"}},
            "spec": {"hostNetwork": true, "runtimeClassName": "kata",
                "containers": [{"name": "app", "image": "x"}], "fromTheFuture": 1},
            "status": {"phase": "Running", "conditions": [],
                "podIP": "10.244.0.7", "podIPs": [{"ip": "10.244.0.7"}, {"ip": "fd00:244::7"}]},
        }));
        let expected = PodRow {
            name: crate::model::ObjectName { namespace: "shop".into(), name: "a".into() },
            uid: "0a1b".into(),
            claim: CgroupClaim::Uid,
            label: CaptureLabel::Disabled,
            host_network: true,
            mesh: None,
            runtime_class: Some("kata".into()),
            ended: false,
            ips: vec!["10.244.0.7".parse().unwrap(), "fd00:244::7".parse().unwrap()],
        };
        assert_eq!(row, expected);
    }

    /// As kubelet makes one.
    fn mirror() -> Value {
        const HASH: &str = "2f8dd6d7ab6a2b2f24f6c9a9d3f6b3d1";
        json!({
            "metadata": {"name": "etcd-n1", "namespace": "kube-system", "uid": "0a1b",
                "annotations": {"kubernetes.io/config.hash": HASH,
                    "kubernetes.io/config.mirror": HASH, "kubernetes.io/config.source": "file"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1",
                    "uid": "7", "controller": true}]},
            "spec": {"nodeName": "n1", "containers": [{"name": "etcd"}]},
        })
    }

    #[test]
    fn a_static_pod_claims_its_cgroup_by_hash() {
        let row = row(mirror());
        let hash = CgroupClaim::Hash("2f8dd6d7ab6a2b2f24f6c9a9d3f6b3d1".into());
        assert_eq!((&*row.uid, row.claim), ("0a1b", hash));
    }

    #[test]
    fn a_static_pod_of_another_shape_claims_nothing() {
        let changes: [(&str, Value); 11] = [
            ("/metadata/annotations/kubernetes.io~1config.hash", json!("other")),
            ("/metadata/annotations", json!({"kubernetes.io/config.mirror": "2f8d"})),
            ("/metadata/annotations", both("../../etc")),
            ("/metadata/annotations", both("2f8d")),
            ("/metadata/annotations", both(&"2f".repeat(40))),
            ("/metadata/name", json!("etcd-n2")),
            ("/metadata/name", json!("n1")),
            ("/metadata/ownerReferences", json!([])),
            ("/metadata/ownerReferences/0/kind", json!("ReplicaSet")),
            ("/metadata/ownerReferences/0/name", json!("n2")),
            ("/spec/nodeName", json!("")),
        ];
        for (path, value) in changes {
            let mut pod = mirror();
            *pod.pointer_mut(path).unwrap() = value.clone();
            assert!(matches!(row(pod).claim, CgroupClaim::Misshapen(_)), "{path}: {value}");
        }
        let mut pod = mirror();
        pod["spec"]["serviceAccountName"] = json!("default");
        assert!(matches!(row(pod).claim, CgroupClaim::Misshapen(_)));
    }

    fn both(hash: &str) -> Value {
        json!({"kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": hash})
    }

    #[test]
    fn meshes_are_known_by_container_and_by_annotation() {
        let with = |containers: Value, init: Value, annotations: Value| {
            row(json!({"metadata": {"name": "a", "uid": "0", "annotations": annotations},
                "spec": {"containers": containers, "initContainers": init}}))
            .mesh
        };
        let (app, none) = (json!([{"name": "app"}]), json!({}));
        assert_eq!(with(app.clone(), json!([]), none.clone()), None);
        let proxy = json!([{"name": "app"}, {"name": "linkerd-proxy"}]);
        assert_eq!(with(proxy, json!([]), none.clone()), Some(Mesh::Linkerd));
        // A native sidecar is an init container that is restarted always.
        let native = json!([{"name": "istio-proxy", "restartPolicy": "Always"}]);
        assert_eq!(with(app.clone(), native, none), Some(Mesh::Istio));
        let annotated = json!({"sidecar.istio.io/status": "{}"});
        assert_eq!(with(app.clone(), json!([]), annotated), Some(Mesh::Istio));
        let ambient = json!({"ambient.istio.io/redirection": "enabled"});
        assert_eq!(with(app.clone(), json!([]), ambient), Some(Mesh::IstioAmbient));
        let off = json!({"ambient.istio.io/redirection": "disabled"});
        assert_eq!(with(app, json!([]), off), None);
    }

    #[test]
    fn a_template_is_passed_over_and_nonsense_names_the_field() {
        let template = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
        assert!(matches!(decode::decode(template), Ok(Object::Unread { .. })));
        let wrong = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "uid": "0"}, "spec": {"hostNetwork": "yes"}});
        let error = decode::decode(wrong).unwrap_err();
        assert_eq!(error.path, "spec.hostNetwork", "{error}");
    }
}
