//! What `mirror check` passes the API server takes, and so what the API server refuses `check` refuses: a table
//! of routes, and mutations of every field that the CRD's schema has.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use mirror_tests::{
    Node,
    cluster::{Api, Channel, ControlPlane, Options, Release},
    eventually, mirror_binary,
};
use serde_json::{Value, json};

mod admission {
    pub(super) mod cases;
    pub(super) mod mutate;
}
use admission::{cases, mutate};

/// Requests at a time.
const CLIENTS: usize = 4;

/// A kind of route, with the schema of `spec` that `mirror check` has.
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    plural: &'static str,
    schema: &'static str,
}

const HTTP: Kind = Kind {
    name: "HTTPRoute",
    plural: "httproutes",
    schema: include_str!("../../mirror-user/src/control/decode/limits/httproute.json"),
};

const GRPC: Kind = Kind {
    name: "GRPCRoute",
    plural: "grpcroutes",
    schema: include_str!("../../mirror-user/src/control/decode/limits/grpcroute.json"),
};

impl Kind {
    /// Where a route is tried without being stored. A Strict server refuses unknown fields, as kubectl has it do.
    fn dry_run(self) -> String {
        let plural = self.plural;
        format!(
            "/apis/gateway.networking.k8s.io/v1/namespaces/default/{plural}?dryRun=All&\
             fieldValidation=Strict"
        )
    }

    fn schema(self) -> Value {
        serde_json::from_str(self.schema).unwrap()
    }

    /// Its CRD, as the project publishes it, of the release of the suite.
    fn published(self) -> Value {
        let files = Channel::Standard.files(Release::Conformance).unwrap();
        let is =
            |file: &&PathBuf| file.to_string_lossy().ends_with(&format!("_{}.yaml", self.plural));
        let file = files.iter().find(is).unwrap();
        serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap()
    }
}

/// A route to be tried.
#[derive(Clone, Debug)]
struct Case {
    kind: Kind,
    name: String,
    spec: Value,
}

fn document(case: &Case, at: usize) -> Value {
    let name = match case.name.strip_prefix(cases::NAMED) {
        Some(name) => name.to_owned(),
        None => format!("case-{at}"),
    };
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": case.kind.name,
        "metadata": {"name": name, "namespace": "default"},
        "spec": case.spec,
    })
}

fn spec_of(crd: &mut Value) -> &mut Value {
    let versions = crd["spec"]["versions"].as_array_mut().unwrap();
    let v1 = versions.iter_mut().find(|version| version["name"] == "v1").unwrap();
    &mut v1["schema"]["openAPIV3Schema"]["properties"]["spec"]
}

/// A schema without its descriptions.
fn bare(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let prose = |name: &str, value: &Value| name == "description" && value.is_string();
            let kept = fields.iter().filter(|(name, value)| !prose(name, value));
            kept.map(|(name, value)| (name.clone(), bare(value))).collect()
        }
        Value::Array(entries) => entries.iter().map(bare).collect(),
        other => other.clone(),
    }
}

/// Whether a Service is among the parents: `check` leaves other routes to others.
fn is_judged(case: &Case) -> bool {
    let service = |parent: &Value| parent["group"] == "" && parent["kind"] == "Service";
    case.spec["parentRefs"].as_array().is_some_and(|parents| parents.iter().any(service))
}

/// Installs the CRDs with the schemas of v1.7.0, which are those of the suite's release with additions.
fn install(plane: &ControlPlane<'_>, api: &Api<'_>) {
    plane.install_release(Channel::Standard, Release::Conformance).unwrap();
    for kind in [HTTP, GRPC] {
        let mut crd = kind.published();
        *spec_of(&mut crd) = kind.schema();
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        plane.kubectl(&args, &crd.to_string()).unwrap();
        // An addition is that the server refuses it.
        let twice = cases::invalid(kind).into_iter().find(|case| case.name == cases::NAME_TWICE);
        let twice = document(&twice.unwrap(), 0);
        eventually("the schema is served", Duration::from_secs(20), || {
            api.post(&kind.dry_run(), &twice).unwrap().0 != 201
        })
        .unwrap();
    }
}

/// Whether the API server takes each, or what it says.
fn admitted(api: &Api<'_>, cases: &[Case]) -> Vec<Result<(), String>> {
    let admit = |at: usize| {
        let case = &cases[at];
        match api.post(&case.kind.dry_run(), &document(case, at)).unwrap() {
            (201, _) => Ok(()),
            (400..=499, response) => Err(response["message"].as_str().unwrap_or_default().into()),
            (status, response) => panic!("{}: {status}: {response}", case.name),
        }
    };
    let numbers: Vec<_> = (0..cases.len()).collect();
    thread::scope(|scope| {
        let share = cases.len().div_ceil(CLIENTS);
        let admit = |share: &[usize]| share.iter().map(|at| admit(*at)).collect::<Vec<_>>();
        let clients = numbers.chunks(share).map(|share| scope.spawn(move || admit(share)));
        let clients: Vec<_> = clients.collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// Whether `mirror check` passes each, or what it says first: one run for all of them.
fn checked(folder: &Path, cases: &[Case]) -> Vec<Result<(), String>> {
    fs::create_dir_all(folder).unwrap();
    let file = |at: usize| folder.join(format!("case-{at}.json"));
    for (at, case) in cases.iter().enumerate() {
        fs::write(file(at), document(case, at).to_string()).unwrap();
    }
    let mut command = Command::new(mirror_binary().unwrap());
    let output = command.args(["check", "--json", "--assume-services"]).arg(folder).output();
    let report: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!(report["summary"]["files"], cases.len(), "each file was read");
    let mut errors = BTreeMap::new();
    for finding in report["findings"].as_array().unwrap() {
        if finding["severity"] == "error" {
            let file = finding["file"].as_str().unwrap().to_owned();
            errors.entry(file).or_insert_with(|| finding.to_string());
        }
    }
    let verdict = |at| match errors.get(&*file(at).to_string_lossy()) {
        None => Ok(()),
        Some(error) => Err(error.clone()),
    };
    (0..cases.len()).map(verdict).collect()
}

/// Tries the routes of a kind. Returns which verdicts are wrong, and how many there are of (server, check).
fn judge(api: &Api<'_>, folder: &Path, kind: Kind) -> (Vec<String>, BTreeMap<(bool, bool), usize>) {
    let (valid, invalid) = (cases::valid(kind), cases::invalid(kind));
    let mut all = [valid.clone(), invalid.clone()].concat();
    for seed in cases::seeds(kind) {
        all.extend(mutate::all(&kind.schema(), &seed).into_iter().filter(is_judged));
    }
    let names: BTreeSet<_> = all.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), all.len(), "a name is used twice");
    let (admitted, checked) = (admitted(api, &all), checked(&folder.join(kind.plural), &all));

    let (mut wrong, mut counts) = (Vec::new(), BTreeMap::new());
    for (at, Case { name, spec, .. }) in all.iter().enumerate() {
        let (server, check) = (&admitted[at], &checked[at]);
        *counts.entry((server.is_ok(), check.is_ok())).or_insert(0) += 1;
        let expected = match at {
            at if at < valid.len() => server.is_ok() && check.is_ok(),
            at if at < valid.len() + invalid.len() => server.is_err() && check.is_err(),
            _ => server.is_ok() || check.is_err(),
        };
        if !expected {
            wrong
                .push(format!("{}: {name}: server {server:?}, check {check:?}: {spec}", kind.name));
        }
    }
    println!("{} {}; (server takes it, check passes it): {counts:?}", all.len(), kind.plural);
    (wrong, counts)
}

#[test]
fn what_check_passes_the_api_server_takes() {
    let node = Node::create("admit").unwrap();
    let options = Options { controllers: false, ..Options::default() };
    let plane = ControlPlane::start(&node, &options).unwrap();
    let api = Api::start(&node, &plane).unwrap();
    install(&plane, &api);
    for (kind, refused, passed) in [(HTTP, 500, 300), (GRPC, 200, 100)] {
        let (wrong, counts) = judge(&api, node.folder(), kind);
        assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
        let count = |server, check| counts.get(&(server, check)).copied().unwrap_or(0);
        let enough = count(false, false) > refused && count(true, true) > passed;
        assert!(enough, "too few of a sort: {counts:?}");
    }
}

#[test]
fn the_schemas_of_check_are_the_published_ones() {
    for kind in [HTTP, GRPC] {
        let mut schema = kind.schema();
        let rules = &mut schema["properties"]["rules"];
        // What v1.7.0 adds to the release of the suite.
        let added = rules["items"]["properties"].as_object_mut().unwrap().remove("retry");
        assert_eq!(added.is_some(), kind.name == HTTP.name);
        let cel = rules["x-kubernetes-validations"].as_array_mut().unwrap();
        let named = |rule: &Value| rule["message"] == "Rule name must be unique within the route";
        assert_eq!(cel.iter().filter(|rule| named(rule)).count(), 1);
        cel.retain(|rule| !named(rule));
        assert_eq!(schema, bare(spec_of(&mut kind.published())), "{}", kind.name);
    }
}
