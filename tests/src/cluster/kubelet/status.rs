//! A pod's status, as it is reported to the API server.
//!
//! In: records of its containers. Out: a strategic merge patch. Conditions keep the time of their
//! last change.

use std::{collections::BTreeMap, net::Ipv4Addr};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use serde_json::{Value, json};

use super::{
    environment::Addresses,
    now,
    record::{Ended, Record, State},
};

/// What is to be reported of one pod, and what was reported.
#[derive(Debug)]
pub(super) struct Status {
    start: Timestamp,
    conditions: BTreeMap<&'static str, (bool, Timestamp)>,
}

impl Status {
    pub(super) fn new() -> Self {
        Self { start: now(), conditions: BTreeMap::new() }
    }

    /// The patch. `addresses` is None before the sandbox exists; `ending`: it is being deleted.
    pub(super) fn patch(
        &mut self,
        pod: &Pod,
        records: &[Record],
        addresses: Option<Addresses>,
        node: Ipv4Addr,
        ending: bool,
    ) -> Value {
        let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        let phase = phase(records, policy.unwrap_or("Always"));
        let ready = records.iter().all(|record| record.ready) && !ending;
        let generation = pod.metadata.generation;
        let conditions: Vec<_> = [
            ("PodReadyToStartContainers", addresses.is_some()),
            ("Initialized", true),
            ("ContainersReady", ready),
            ("Ready", ready),
        ]
        .into_iter()
        .map(|(kind, holds)| self.condition(kind, holds, generation))
        .collect();
        let statuses: Vec<_> = records.iter().map(container).collect();
        let mut status = json!({
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": statuses,
            "hostIP": node,
            "hostIPs": [{"ip": node}],
            "startTime": self.start,
            "observedGeneration": generation,
        });
        if let Some(addresses) = addresses {
            status["podIP"] = json!(addresses.pod);
            status["podIPs"] = json!([{"ip": addresses.pod}]);
        }
        json!({"metadata": {"uid": pod.metadata.uid}, "status": status})
    }

    fn condition(&mut self, kind: &'static str, holds: bool, generation: Option<i64>) -> Value {
        let time = now();
        let entry = self.conditions.entry(kind).or_insert((holds, time));
        if entry.0 != holds {
            *entry = (holds, time);
        }
        let status = if holds { "True" } else { "False" };
        json!({
            "type": kind, "status": status, "lastTransitionTime": entry.1,
            "observedGeneration": generation,
        })
    }
}

/// Kubelet's getPhase.
fn phase(records: &[Record], policy: &str) -> &'static str {
    let ended = |record: &Record| match &record.state {
        State::Terminated(ended) => Some(ended.code == 0),
        _ => None,
    };
    let begun = |record: &Record| !record.id.is_empty();
    if !records.iter().all(begun) {
        return "Pending";
    }
    let ends: Option<Vec<bool>> = records.iter().map(ended).collect();
    match (ends, policy) {
        (None, _) | (Some(_), "Always") => "Running",
        (Some(ends), _) if ends.iter().all(|good| *good) => "Succeeded",
        (Some(_), "Never") => "Failed",
        (Some(_), _) => "Running",
    }
}

fn container(record: &Record) -> Value {
    let state = match &record.state {
        State::Waiting { reason, message } => {
            json!({"waiting": {"reason": reason, "message": message}})
        }
        State::Running { since, .. } => json!({"running": {"startedAt": since}}),
        State::Terminated(ended) => terminated(ended),
    };
    let id = match record.id.as_str() {
        "" => String::new(),
        id => format!("containerd://{id}"),
    };
    json!({
        "name": record.name,
        "image": record.image,
        "imageID": record.image,
        "containerID": id,
        "ready": record.ready,
        "started": record.started,
        "restartCount": record.restarts,
        "state": state,
        "lastState": record.last.as_ref().map_or_else(|| json!({}), terminated),
    })
}

fn terminated(ended: &Ended) -> Value {
    let reason = if ended.code == 0 { "Completed" } else { "Error" };
    json!({"terminated": {
        "exitCode": ended.code,
        "signal": ended.signal,
        "reason": reason,
        "startedAt": ended.started,
        "finishedAt": ended.finished,
        "containerID": format!("containerd://{}", ended.id),
    }})
}
