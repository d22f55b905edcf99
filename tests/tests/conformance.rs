//! The Gateway API's own conformance suite, unmodified, with mirror installed as its users install it; and the
//! tests of `tests/conformance/mesh`, which have its form and are not in its report.
//!
//! The features below are declared, and all tests of a mesh must pass but those of [`NOT_BUILT`], which
//! must fail. The report and the results by name are compared with the committed ones; with
//! `MIRROR_UPDATE_CONFORMANCE=1` those are replaced.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use mirror_tests::{
    Node,
    cluster::{
        Channel, Conformance, ControlPlane, DEPLOY, Images, Kubelet, NAMESPACE, Options, Release,
        TestResult,
    },
};
use serde_json::Value;

/// What mirror declares besides the core features of the profiles MESH-HTTP and MESH-GRPC. (Those of
/// HTTPRoute belong to no profile of a mesh, but tests of a mesh need them.)
const FEATURES: [&str; 14] = [
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteParentRefPort",
    "HTTPRouteResponseHeaderModification",
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
];

/// Tests of features that are not built, and which feature it is. A test that passes must leave.
const NOT_BUILT: [(&str, &str); 0] = [];

/// How long a test of the suite waits for a route to take effect, in seconds. (A conformant mesh may take
/// 30; each test that fails takes all of it.)
const CONVERGENCE: u64 = 12;

/// The committed results by name, and whether they are those of our tests.
const RESULTS: [(&str, bool); 2] = [("results.txt", false), ("mesh/results.txt", true)];

const UPDATE: &str = "MIRROR_UPDATE_CONFORMANCE";

/// Which cluster, which features, and who we are.
fn flags() -> Vec<String> {
    let version = env!("CARGO_PKG_VERSION");
    [
        "-conformance-profiles=MESH-HTTP,MESH-GRPC".to_owned(),
        format!("-supported-features={}", FEATURES.join(",")),
        format!("-timeout-config-overrides=MaxTimeToConsistency:{CONVERGENCE}"),
        "-organization=mirror".to_owned(),
        "-project=mirror".to_owned(),
        "-url=https://mirror.dev".to_owned(),
        format!("-version=v{version}"),
        "-contact=https://mirror.dev".to_owned(),
        // The cluster ends with the test.
        "-cleanup-base-resources=false".to_owned(),
    ]
    .into()
}

/// Installs mirror as `deploy/README.md` says.
fn install(plane: &ControlPlane<'_>) {
    plane.kubectl(&["apply", "-k", DEPLOY], "").unwrap();
    for name in ["daemonset/mirror-agent", "deployment/mirror-controller"] {
        plane.kubectl(&["rollout", "status", "-n", NAMESPACE, name, "--timeout=90s"], "").unwrap();
    }
}

/// What is wrong: each test must have passed, or failed and be listed. Prints which were skipped, and why.
fn judge(results: &[TestResult], listed: &[(&str, &str)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for TestResult { name, result, undeclared, .. } in results {
        let reason = listed.iter().find(|(test, _)| test == name).map(|(_, feature)| feature);
        match (result.as_str(), reason) {
            ("passed", None) => {}
            ("failed", Some(feature)) => println!("{name} fails: not built: {feature}"),
            ("passed", Some(feature)) => {
                wrong.push(format!("{name} passes: {feature} is built, remove it from NOT_BUILT"));
            }
            ("skipped", None) if !undeclared.is_empty() => {
                println!("{name} is skipped: not declared: {}", undeclared.join(", "));
            }
            (other, _) => wrong.push(format!("{name} is {other}")),
        }
    }
    let missing = listed.iter().filter(|(name, _)| !results.iter().any(|test| test.name == *name));
    wrong.extend(missing.map(|(name, _)| format!("the suite has no test {name}")));
    wrong
}

/// One line for each test of the suite, or of ours.
fn by_name(results: &[TestResult], ours: bool) -> String {
    let results = results.iter().filter(|test| test.ours == ours);
    let mut lines: Vec<_> =
        results.map(|test| format!("{} {}\n", test.name, test.result)).collect();
    lines.sort();
    lines.concat()
}

/// A report without what differs from one run to the next: its date, and the order of the profiles.
fn comparable(report: &str) -> Value {
    let mut report: Value = serde_saphyr::from_str(report).unwrap();
    report.as_object_mut().unwrap().remove("date").unwrap();
    let profiles = report["profiles"].as_array_mut().unwrap();
    profiles.sort_by_key(|profile| profile["name"].as_str().unwrap().to_owned());
    report
}

/// Compares what was found with the committed files, or replaces those.
fn compare(report: &str, results: &[TestResult]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let committed = |name: &str| folder.join(name);
    if std::env::var_os(UPDATE).is_some() {
        fs::write(committed("report.yaml"), report).unwrap();
        for (name, ours) in RESULTS {
            fs::write(committed(name), by_name(results, ours)).unwrap();
        }
        return;
    }
    let read = |name: &str| fs::read_to_string(committed(name)).unwrap();
    let differs = |name: &str| format!("{name} differs: with {UPDATE}=1 it is replaced");
    for (name, ours) in RESULTS {
        let file = format!("tests/conformance/{name}");
        assert_eq!(read(name), by_name(results, ours), "{}", differs(&file));
    }
    let (old, new) = (comparable(&read("report.yaml")), comparable(report));
    assert_eq!(old, new, "{}", differs("tests/conformance/report.yaml"));
}

/// Where the report of this run goes; the suite's log is beside it.
fn report_file() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/conformance");
    fs::create_dir_all(&folder).unwrap();
    folder.canonicalize().unwrap().join("report.yaml")
}

#[test]
fn mirror_passes_the_suite_of_the_gateway_api() {
    let suite = Conformance::build().unwrap();
    let node = Node::create("conform").unwrap();
    let plane = ControlPlane::start(&node, &Options::default()).unwrap();
    plane.install_release(Channel::Standard, Release::Conformance).unwrap();
    let images = Images::standard().unwrap().with("echo-advanced", suite.image(&plane));
    let _kubelet = Kubelet::start(&plane, images).unwrap();
    install(&plane);

    let file = report_file();
    let results = suite.run(&plane, &flags(), &file, Duration::from_secs(400)).unwrap();
    let wrong = judge(&results, &NOT_BUILT);
    let log = file.with_extension("log");
    assert!(wrong.is_empty(), "{}\nsee {}", wrong.join("\n"), log.display());
    let report = fs::read_to_string(&file).unwrap();
    compare(&report, &results);
}

#[test]
fn a_result_that_is_not_expected_is_reported() {
    let test = |name: &str, result: &str, undeclared: &[&str]| TestResult {
        name: name.into(),
        ours: false,
        result: result.into(),
        undeclared: undeclared.iter().map(|feature| (*feature).into()).collect(),
    };
    let listed = [("Listed", "Feature")];
    let with = |others: &[TestResult], outcome| {
        judge(&[others, &[test("Listed", outcome, &[])]].concat(), &listed)
    };
    let fine = [test("A", "passed", &[]), test("B", "skipped", &["Other"])];
    assert_eq!(with(&fine, "failed"), [""; 0]);
    assert_eq!(
        with(&fine, "passed"),
        ["Listed passes: Feature is built, remove it from NOT_BUILT"]
    );
    assert_eq!(with(&[], "skipped"), ["Listed is skipped"]);
    assert_eq!(with(&[test("A", "failed", &[])], "failed"), ["A is failed"]);
    assert_eq!(with(&[test("A", "skipped", &[])], "failed"), ["A is skipped"]);
    assert_eq!(judge(&fine, &listed), ["the suite has no test Listed"]);
}
