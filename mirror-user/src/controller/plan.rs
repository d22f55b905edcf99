//! Planning: the object store in; for each route whose status is not as it should be, what it should
//! be, out. Pure.

use std::collections::{BTreeMap, HashMap};

use super::{
    object_store::ObjectStore,
    route::{DecodeVerdict, RouteRow},
    status::{self, Moment, ParentStatus},
};
use crate::{control::resolve::RouteStatus, model::RouteName};

/// What is to be written, by route.
pub type StatusPlan = BTreeMap<RouteName, RoutePlan>;

/// What is to be written to one route.
#[derive(Clone, Debug)]
pub struct RoutePlan {
    /// The route as it was judged.
    pub row: RouteRow,
    /// What our entries should say.
    pub wanted: Vec<ParentStatus>,
}

impl RoutePlan {
    /// The list to write over `row`, which may be newer than the plan; None when it is so already.
    #[must_use]
    pub fn parents(&self, row: &RouteRow, time: &str) -> Option<Vec<serde_json::Value>> {
        let moment = Moment { generation: row.generation, time };
        status::parents(&row.parents, &self.wanted, moment)
    }

    /// Whether what was judged is what `row` says: only its status may have changed.
    #[must_use]
    pub fn is_about(&self, row: &RouteRow) -> bool {
        (&self.row.uid, self.row.generation) == (&row.uid, row.generation)
    }
}

/// Judges all routes.
#[must_use]
pub fn plan(store: &mut ObjectStore) -> StatusPlan {
    let conditions = store.reconcile();
    let mut verdicts: HashMap<&RouteName, Vec<&RouteStatus>> = HashMap::new();
    for status in &conditions {
        verdicts.entry(&status.route).or_default().push(status);
    }
    let mut plan = StatusPlan::new();
    for (name, row) in store.routes().iter().filter(|(_, row)| !row.leaving) {
        let statuses = verdicts.get(name).map(Vec::as_slice);
        let mut wanted = wanted(row, statuses.unwrap_or_default());
        if let Some(warning_for) = store.warning_for(name) {
            wanted.iter_mut().for_each(|status| status.warning_for(&warning_for));
        }
        let route = RoutePlan { row: row.clone(), wanted };
        if route.parents(row, "").is_some() {
            plan.insert(name.clone(), route);
        }
    }
    plan
}

/// One entry for each Service among the parents: the resolver judges them in their order.
fn wanted(row: &RouteRow, statuses: &[&RouteStatus]) -> Vec<ParentStatus> {
    let parents = row.parent_refs.iter().cloned();
    match &row.verdict {
        DecodeVerdict::Foreign => Vec::new(),
        DecodeVerdict::Refused(refusal) => {
            parents.map(|parent| ParentStatus::refused(parent, refusal)).collect()
        }
        DecodeVerdict::Decoded => parents
            .zip(statuses)
            .map(|(parent, status)| ParentStatus::resolved(parent, status))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::RawValue};

    use super::*;
    use crate::{
        control::kube::kinds::Watched,
        controller::status::CONTROLLER,
        kube::Event,
        model::{ObjectName, RouteKind},
    };

    const HTTP: Watched = Watched::Route(RouteKind::Http);

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "default".into(), name: name.into() }
    }

    fn route_name(route: &str) -> RouteName {
        RouteKind::Http.named(name(route))
    }

    fn apply(store: &mut ObjectStore, kind: Watched, name_: &str, value: &Value) {
        let raw = RawValue::from_string(value.to_string()).unwrap();
        store.apply(kind, Event::Applied(name(name_), raw));
    }

    fn service(service: &str) -> Value {
        json!({"metadata": {"name": service, "namespace": "default"},
               "spec": {"clusterIP": "10.0.0.1", "futureField": 1, "ports": [{"port": 80}]}})
    }

    /// As a member of a paged list: without apiVersion and kind.
    fn route(name: &str, filter: &str) -> Value {
        let parent = |kind: &str| json!({"group": if kind == "Service" {""} else {"g"}, "kind": kind, "name": "a"});
        json!({"metadata": {"name": name, "namespace": "default", "uid": name, "generation": 2,
                            "resourceVersion": "7"},
               "spec": {"parentRefs": [parent("Gateway"), parent("Service")],
                        "rules": [{"filters": [{"type": filter, "requestMirror":
                            {"backendRef": {"name": "a", "port": 80}}}],
                            "backendRefs": [{"name": "a", "port": 80}]}]}})
    }

    fn store() -> ObjectStore {
        let mut store = ObjectStore::default();
        apply(&mut store, Watched::Service, "a", &service("a"));
        apply(&mut store, HTTP, "good", &route("good", "RequestMirror"));
        apply(&mut store, HTTP, "odd", &route("odd", "ExternalAuth"));
        store
    }

    #[test]
    fn a_route_that_does_not_decode_is_known_by_name_and_delays_no_other() {
        let plan = plan(&mut store());
        let reason = |route: &str| {
            let list =
                plan[&route_name(route)].parents(&plan[&route_name(route)].row, "t").unwrap();
            assert_eq!(list.len(), 1, "the Gateway is another's");
            list[0]["conditions"][0]["reason"].clone()
        };
        assert_eq!((reason("good"), reason("odd")), (json!("Accepted"), json!("UnsupportedValue")));
    }

    #[test]
    fn what_is_written_already_is_not_planned_and_what_is_no_longer_ours_is_taken_out() {
        let mut store = store();
        let planned = plan(&mut store);
        let list =
            planned[&route_name("good")].parents(&planned[&route_name("good")].row, "t").unwrap();
        let mut written = route("good", "RequestMirror");
        written["status"] = json!({"parents": list});
        apply(&mut store, HTTP, "good", &written);
        assert!(!plan(&mut store).contains_key(&route_name("good")));
        // Its Service is no parent any more.
        written["spec"]["parentRefs"] = json!([{"name": "gateway"}]);
        written["metadata"]["generation"] = json!(3);
        apply(&mut store, HTTP, "good", &written);
        let planned = plan(&mut store);
        let left =
            planned[&route_name("good")].parents(&planned[&route_name("good")].row, "t").unwrap();
        assert!(left.is_empty(), "{left:?}");
        assert!(written.to_string().contains(CONTROLLER));
    }

    #[test]
    fn a_schema_that_drops_percent_is_reported_to_who_mirrors_everything() {
        let mut store = store();
        let mut some = route("some", "RequestMirror");
        some["spec"]["rules"][0]["filters"][0]["requestMirror"]["percent"] = json!(10);
        apply(&mut store, HTTP, "some", &some);
        let message = |store: &mut ObjectStore, route: &str| {
            plan(store)[&route_name(route)].wanted[0].conditions[0].1.message.clone()
        };
        assert!(!message(&mut store, "good").contains("lacks"));
        let mut schema = json!({"requestMirror": {"properties": {"backendRef": {}}}});
        for step in ["filters", "rules"] {
            schema = json!({step: {"items": {"properties": schema}}});
        }
        let schema = json!({"properties": {"spec": {"properties": schema}}});
        let crd = json!({"spec": {"names": {"kind": "HTTPRoute"}, "versions": [
            {"name": "v1", "served": true, "schema": {"openAPIV3Schema": schema}}]}});
        let raw = RawValue::from_string(crd.to_string()).unwrap();
        let applied = Event::Applied(name("crd"), raw);
        assert!(
            store.apply_crd(RouteKind::Http, &applied)
                && !store.apply_crd(RouteKind::Http, &applied)
        );
        assert!(message(&mut store, "good").contains("lacks percent"));
        assert!(!message(&mut store, "some").contains("lacks"), "its share has arrived");
        assert!(store.apply_crd(RouteKind::Http, &Event::Deleted(name("crd"))));
    }

    #[test]
    fn a_service_that_goes_changes_the_verdict() {
        let mut store = store();
        store.apply(Watched::Service, Event::Deleted(name("a")));
        let plan = plan(&mut store);
        let condition = &plan[&route_name("good")].wanted[0].conditions[0];
        assert_eq!((condition.0, condition.1.reason), ("Accepted", "NoMatchingParent"));
    }

    #[test]
    fn a_new_list_forgets_what_it_does_not_name_at_its_end() {
        let mut store = store();
        assert_eq!(store.incomplete().count(), 7);
        store.apply(HTTP, Event::Started);
        apply(&mut store, HTTP, "good", &route("good", "RequestMirror"));
        assert_eq!(plan(&mut store).len(), 2, "until then it stays");
        store.apply(HTTP, Event::Complete);
        assert_eq!(plan(&mut store).keys().collect::<Vec<_>>(), [&route_name("good")]);
        assert_eq!(store.incomplete().count(), 6);
        let seconds = std::time::Duration::from_secs;
        assert!(!store.apply(HTTP, Event::Missing(seconds(29))));
        assert_eq!(store.routes().len(), 1, "a server that has just started may be wrong");
        assert!(store.apply(HTTP, Event::Missing(seconds(30))));
        assert!(store.routes().is_empty());
        assert!(!store.apply(HTTP, Event::Missing(seconds(35))));
    }
}
