//! The walkthrough through all stages: folder, decoding, resolving, publishing, dump.

use std::{collections::HashMap, convert::Infallible, fs, net::SocketAddr, time::Duration};

use super::*;
use crate::{control::publish::MapEntry, dump::RoutesDump, route::FrontendId};

#[derive(Debug, Default)]
pub(super) struct Map(HashMap<SocketAddr, FrontendId>);

impl FrontendMap for Map {
    type Error = Infallible;

    fn insert(
        &mut self,
        id: FrontendId,
        address: SocketAddr,
        _: MapEntry,
    ) -> Result<(), Infallible> {
        self.0.insert(address, id);
        Ok(())
    }

    fn remove(&mut self, address: SocketAddr) -> Result<(), Infallible> {
        self.0.remove(&address);
        Ok(())
    }

    fn forget(&mut self, _: FrontendId) -> Result<(), Infallible> {
        Ok(())
    }
}

#[test]
fn the_walkthrough_from_folder_to_dump() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let report = Arc::new(ArcSwap::from_pointee(ControlReport::default()));
    let mut control = Control::new(Map::default(), Arc::clone(&snapshot), Arc::clone(&report));
    write("services.yaml", include_str!("../../tests/fixtures/services.yaml"));
    let mut states = files::watch(folder.path()).unwrap();
    let mut next = |control: &mut Control<Map>| {
        let start = Instant::now();
        while !states.has_changed().unwrap() {
            assert!(start.elapsed() < Duration::from_secs(1), "not in force within a second");
            std::thread::sleep(Duration::from_millis(5));
        }
        let state = states.borrow_and_update().clone();
        control.replace(&state.objects, state.diagnostics(), Instant::now());
        let report = report.load();
        serde_json::to_value(RoutesDump::new(&snapshot.load(), &report)).unwrap()
    };
    let address: SocketAddr = "10.96.0.10:8000".parse().unwrap();

    write("route.yaml", include_str!("../../tests/fixtures/route-default.yaml"));
    let dump = next(&mut control);
    assert_eq!(control.publisher.map().0.get(&address), Some(&FrontendId(2)));
    let rule = &dump["frontends"]["10.96.0.10:8000"]["producer"][0];
    assert_eq!(rule["backends"][0]["endpoints"][0], "10.244.1.11:80");
    assert_eq!(rule["filters"].as_array().unwrap().len(), 0);
    assert_eq!(dump["mirrors"], serde_json::json!([]));

    write("route.yaml", include_str!("../../tests/fixtures/route-mirror.yaml"));
    let dump = next(&mut control);
    let rule = &dump["frontends"]["10.96.0.10:8000"]["producer"][0];
    assert_eq!(rule["filters"][0], "mirror 1 of 1 to default/httpbin-v2:80");
    assert_eq!(dump["routes"][0]["accepted"]["reason"], "Accepted");
    let mirror = serde_json::json!({"route": "default/httpbin", "shadow": "default/httpbin-v2:80",
        "tapped": false});
    assert_eq!(dump["mirrors"], serde_json::json!([mirror]));

    write("route.yaml", "kind: HTTPRoute");
    let dump = next(&mut control);
    assert!(dump["problems"][0].as_str().unwrap().contains("route.yaml: document 1 (line 1)"));
    assert_eq!(dump["frontends"].as_object().unwrap().len(), 1, "the last good state stays");

    fs::remove_file(folder.path().join("route.yaml")).unwrap();
    let dump = next(&mut control);
    assert!(control.publisher.map().0.is_empty());
    assert_eq!(dump["tombstones"]["2"], "10.96.0.10:8000");
    assert_eq!(dump["problems"].as_array().unwrap().len(), 0);
}

#[test]
fn a_dump_says_how_much_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints: String =
        (0..250).map(|n| format!("- addresses: [10.244.7.{n}]\n")).collect::<Vec<_>>().concat();
    let slice = format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: many\n  labels:\n    \
         kubernetes.io/service-name: httpbin-v1\naddressType: IPv4\nports:\n- {{name: http, port: 80}}\n\
         endpoints:\n{endpoints}"
    );
    let texts = [include_str!("../../tests/fixtures/services.yaml"), &slice, "---\n"];
    let route = include_str!("../../tests/fixtures/route-mirror.yaml");
    let other = route.replacen("name: httpbin\n", "name: other\n", 1);
    let text = [&texts.concat(), route, "---\n", &*other].concat();
    fs::write(folder.path().join("all.yaml"), text).unwrap();
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let report = Arc::new(ArcSwap::from_pointee(ControlReport::default()));
    let mut control = Control::new(Map::default(), Arc::clone(&snapshot), Arc::clone(&report));
    let state = files::watch(folder.path()).unwrap().borrow_and_update().clone();
    control.replace(&state.objects, state.diagnostics(), Instant::now());
    let (snapshot, report) = (snapshot.load(), report.load());
    let frontend = |limit| {
        let dump = serde_json::to_value(RoutesDump::bounded(&snapshot, &report, limit)).unwrap();
        dump["frontends"]["10.96.0.10:8000"].clone()
    };

    let whole = frontend(2);
    assert_eq!(whole["producer"].as_array().unwrap().len(), 2, "{whole}");
    assert_eq!(whole.get("matches_left_out"), None);
    let backend = &whole["producer"][0]["backends"][0];
    assert_eq!(backend["endpoints"].as_array().unwrap().len(), 100);
    // The fixture's own endpoints count as well.
    assert!(backend["endpoints_left_out"].as_u64().unwrap() >= 150, "{backend}");

    let cut = frontend(1);
    assert_eq!(cut["producer"].as_array().unwrap().len(), 1);
    assert_eq!(cut["matches_left_out"], 1);
}
