//! Pods, as far as enrolment reads them. Unlike what routes are made of, the rest of a Pod is
//! nobody's business here: unknown fields are passed over.

use serde::Deserialize;
use serde_json::Value;

use super::{Decoded, Fault, Metadata, Path, fault::fail, object_name};
use crate::{
    control::objects::Object,
    enrol::{Mesh, PodRow, Wish},
};

/// Of a static pod's mirror: the uid that kubelet knows the pod by, and names its cgroup after
/// (pkg/kubelet/types/pod_update.go, ConfigHashAnnotationKey; the API's own uid is another).
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Says that the Pod is such a mirror (ConfigMirrorAnnotationKey).
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

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
struct Status {
    phase: Option<String>,
}

/// Whether a cluster has made it: a template that a user wrote has no uid.
pub(super) fn is_of_a_cluster(document: &Value) -> bool {
    document.pointer("/metadata/uid").and_then(Value::as_str).is_some_and(|uid| !uid.is_empty())
}

pub(super) fn decode(document: Value) -> Decoded<Object> {
    let mut track = serde_path_to_error::Track::new();
    let pod = Pod::deserialize(serde_path_to_error::Deserializer::new(document, &mut track));
    let pod = pod.map_err(|error: serde_json::Error| {
        (Path(track.path().to_string()), Fault::Malformed(error.to_string()))
    })?;
    let annotation = |key| pod.metadata.annotations.as_ref().and_then(|all| all.get(key));
    let hash = annotation(CONFIG_MIRROR).and_then(|_| annotation(CONFIG_HASH));
    let Some(uid) = pod.metadata.uid.clone() else {
        return fail("metadata.uid", Fault::Missing("every Pod of a cluster"));
    };
    let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let names: Vec<_> = containers.map(|container| container.name.as_str()).collect();
    Ok(Object::Pod(PodRow {
        name: object_name(&pod.metadata)?,
        cgroup: hash.unwrap_or(&uid).as_str().into(),
        uid: uid.into(),
        wish: Wish::of(pod.metadata.labels.as_ref()),
        host_network: pod.spec.host_network,
        mesh: Mesh::ALL.into_iter().find(|mesh| {
            names.iter().any(|name| mesh.containers().contains(name))
                || mesh.annotations().iter().any(|(key, value)| {
                    annotation(key).is_some_and(|has| value.is_none_or(|value| has == value))
                })
        }),
        runtime_class: pod.spec.runtime_class_name.map(Into::into),
        ended: matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed")),
    }))
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
    fn a_row_has_what_enrolment_reads_and_the_rest_is_passed_over() {
        let row = row(json!({
            "metadata": {"name": "a", "namespace": "shop", "uid": "0a1b",
                "labels": {"mirror.dev/capture": "disabled"},
                "annotations": {"kubernetes.io/config.hash": "not a mirror"}},
            "spec": {"hostNetwork": true, "runtimeClassName": "kata",
                "containers": [{"name": "app", "image": "x"}], "fromTheFuture": 1},
            "status": {"phase": "Running", "conditions": []},
        }));
        let expected = PodRow {
            name: crate::control::objects::ObjectName {
                namespace: "shop".into(),
                name: "a".into(),
            },
            uid: "0a1b".into(),
            cgroup: "0a1b".into(),
            wish: Wish::Disabled,
            host_network: true,
            mesh: None,
            runtime_class: Some("kata".into()),
            ended: false,
        };
        assert_eq!(row, expected);
    }

    #[test]
    fn a_static_pods_cgroup_is_named_after_its_hash() {
        let row = row(json!({"metadata": {"name": "a", "uid": "0a1b", "annotations": {
            "kubernetes.io/config.hash": "2f8d", "kubernetes.io/config.mirror": "2f8d"}}}));
        assert_eq!((&*row.uid, &*row.cgroup), ("0a1b", "2f8d"));
        assert_eq!(row.name.namespace, "default");
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
