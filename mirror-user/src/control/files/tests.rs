//! Files that change, break and go away, while the last good state stays.

use std::{fs, time::Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: 10.0.0.1\n  \
         ports:\n  - port: {port}\n"
    )
}

fn contents(files: &[(&str, &str)]) -> scan::Contents {
    files.iter().map(|(name, text)| (PathBuf::from(name), Ok((*text).to_owned()))).collect()
}

/// Name and port of all Services in force.
fn services(state: &FolderState) -> Vec<(String, u16)> {
    let services = state.objects.services.values();
    services.map(|service| (service.name.name.clone(), service.ports[0].port)).collect()
}

fn in_force(folder: &Folder) -> Vec<(String, u16)> {
    services(&folder.state())
}

fn problems(folder: &Folder) -> Vec<String> {
    folder.state().problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_problem_names_file_document_and_field_and_the_last_good_state_stays() {
    let mut folder = Folder::default();
    let (a, b) = (service("a", 1), service("b", 1));
    folder.update(contents(&[("a.yaml", &a), ("b.yaml", &b)]));
    assert!(problems(&folder).is_empty());
    let broken = format!("{}---\n{}", service("a", 2), service("c", 1).replace("port:", "prt:"));
    folder.update(contents(&[("a.yaml", &broken), ("b.yaml", &service("b", 2))]));
    assert_eq!(in_force(&folder), [("a".into(), 1), ("b".into(), 2)]);
    let [problem] = &problems(&folder)[..] else { panic!("{:?}", problems(&folder)) };
    for part in ["a.yaml: document 2 (line 10): Service default/c: spec.ports[0]", "stays in force"]
    {
        assert!(problem.contains(part), "{problem}");
    }
    folder.update(contents(&[("a.yaml", &service("a", 3)), ("b.yaml", &b)]));
    assert_eq!(in_force(&folder), [("a".into(), 3), ("b".into(), 1)]);
    assert!(problems(&folder).is_empty());
}

#[test]
fn a_refused_rule_leaves_the_rest_of_its_file_to_the_newest_state() {
    let route = |rules: &str| {
        format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: r}}, spec: \
             {{parentRefs: [{{group: '', kind: Service, name: a}}], rules: [{rules}]}}}}\n---\n"
        )
    };
    let backend = |name: &str| format!("backendRefs: [{{name: {name}, port: 80}}]");
    let canary = "matches: [{headers: [{name: canary, value: '1'}]}]";
    let first = route(&format!("{{{}}}, {{{canary}, {}}}", backend("a"), backend("b")));
    let mut folder = Folder::default();
    folder.update(contents(&[("a.yaml", &(first + &service("a", 1)))]));
    assert!(problems(&folder).is_empty());
    let second = route(&format!("{{{}}}, {{{canary}, future: 1}}", backend("c")));
    let second = second + &service("a", 2);
    folder.update(contents(&[("a.yaml", &second)]));
    assert_eq!(in_force(&folder), [("a".into(), 2)]);
    let [problem] = &problems(&folder)[..] else { panic!("{:?}", problems(&folder)) };
    for part in
        ["a.yaml: document 1 (line 1): HTTPRoute default/r: spec.rules[1].future", "last valid"]
    {
        assert!(problem.contains(part), "{problem}");
    }
    let backends = |folder: &Folder| {
        let state = folder.state();
        let rules = state.objects.routes.values().flat_map(|route| &route.rules);
        let targets = rules.flat_map(|rule| &rule.backends).map(|backend| &backend.target);
        targets.map(|target| format!("{target:?}")).collect::<Vec<_>>().join(" ")
    };
    let both = backends(&folder);
    assert!(both.contains("\"c\"") && both.contains("\"b\""), "{both}");
    let mut fresh = Folder::default();
    fresh.update(contents(&[("a.yaml", &second)]));
    assert!(!backends(&fresh).contains("\"b\""));
    assert!(problems(&fresh)[0].contains("get 500"));
}

#[test]
fn syntax_errors_have_a_line() {
    let mut folder = Folder::default();
    let text = format!("{}---\na: [1\nb: 2\n", service("a", 1));
    folder.update(contents(&[("a.yaml", &text), ("b.json", "{\"kind\":\n 1,}")]));
    let problems = problems(&folder);
    assert!(problems[0].starts_with("a.yaml: document 2 (line 1"), "{problems:?}");
    assert!(problems[1].starts_with("b.json: document 1 (line 2)"), "{problems:?}");
    assert!(in_force(&folder).is_empty());
}

#[test]
fn a_removed_file_takes_its_objects_with_it() {
    let mut folder = Folder::default();
    folder.update(contents(&[("a.yaml", &service("a", 1)), ("b.yaml", &service("b", 1))]));
    folder.update(contents(&[("b.yaml", &service("b", 1))]));
    assert_eq!(in_force(&folder), [("b".into(), 1)]);
}

#[test]
fn an_object_defined_twice_names_both_places() {
    let mut folder = Folder::default();
    let twice = format!("{}---\n{}", service("a", 1), service("a", 2));
    folder.update(contents(&[("a.yaml", &twice)]));
    let problem = &problems(&folder)[0];
    assert!(
        problem.contains(
            "a.yaml: document 2 (line 10): Service default/a is already defined by document 1"
        ),
        "{problem}"
    );

    folder.update(contents(&[("a.yaml", &service("a", 1)), ("b.yaml", &service("a", 2))]));
    let problem = &problems(&folder)[0];
    assert!(
        problem.contains(
            "b.yaml: document 1 (line 1): Service default/a is already defined by a.yaml"
        ),
        "{problem}"
    );
    assert_eq!(in_force(&folder), [("a".into(), 1)]);
    // The one that was there first stays, whatever its name; the other waits for its turn.
    folder.update(contents(&[("0.yaml", &service("a", 3)), ("a.yaml", &service("a", 1))]));
    assert_eq!(in_force(&folder), [("a".into(), 1)]);
    folder.update(contents(&[("0.yaml", &service("a", 3))]));
    assert_eq!(in_force(&folder), [("a".into(), 3)]);
    assert!(problems(&folder).is_empty());
}

#[test]
fn an_object_may_move_between_files_at_once() {
    let mut folder = Folder::default();
    folder.update(contents(&[("a.yaml", &service("x", 1)), ("b.yaml", &service("y", 1))]));
    folder.update(contents(&[("a.yaml", &service("y", 2)), ("b.yaml", &service("x", 2))]));
    assert_eq!(in_force(&folder), [("x".into(), 2), ("y".into(), 2)]);
    assert!(problems(&folder).is_empty());
}

#[test]
fn other_kinds_are_passed_over_by_name() {
    let mut folder = Folder::default();
    let text = format!(
        "# comment\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\n---\n\
         apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n---\n{}",
        service("a", 1)
    );
    folder.update(contents(&[("a.yaml", &text)]));
    assert_eq!(in_force(&folder), [("a".into(), 1)]);
    let state = folder.state();
    assert!(state.problems.is_empty(), "{:?}", state.problems);
    assert!(
        state.passed_over[0].contains("document 1 (line 3): apps/v1 Deployment default/d"),
        "{:?}",
        state.passed_over
    );
    assert_eq!(state.passed_over.len(), 2);
}

/// Waits for a state that holds, and returns how long it took.
fn wait(receiver: &watch::Receiver<FolderState>, holds: impl Fn(&FolderState) -> bool) -> Duration {
    let start = Instant::now();
    while !holds(&receiver.borrow()) {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", receiver.borrow());
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

#[test]
fn changes_are_in_force_within_a_second() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("a.yaml"), service("a", 1)).unwrap();
    let receiver = watch(folder.path()).unwrap();
    assert_eq!(services(&receiver.borrow()), [("a".into(), 1)]);

    let mut taken = Vec::new();
    fs::write(file("a.yaml"), service("a", 2)).unwrap();
    taken.push(wait(&receiver, |state| services(state) == [("a".into(), 2)]));
    // As editors do it: a temporary file beside, then a rename.
    fs::write(file(".a.yaml.swp"), "{").unwrap();
    fs::write(file("a.yaml~"), "{").unwrap();
    fs::write(file("new"), service("a", 3)).unwrap();
    fs::rename(file("new"), file("a.yaml")).unwrap();
    taken.push(wait(&receiver, |state| services(state) == [("a".into(), 3)]));
    assert!(receiver.borrow().problems.is_empty());
    fs::write(file("b.yml"), "a: [").unwrap();
    taken.push(wait(&receiver, |state| state.problems.len() == 1));
    assert_eq!(services(&receiver.borrow()), [("a".into(), 3)]);
    fs::remove_file(file("b.yml")).unwrap();
    fs::remove_file(file("a.yaml")).unwrap();
    taken.push(wait(&receiver, |state| services(state).is_empty() && state.problems.is_empty()));
    assert!(taken.iter().all(|taken| *taken < Duration::from_secs(1)), "{taken:?}");
}

#[test]
fn a_file_that_is_being_rewritten_does_not_lose_its_objects() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.yaml");
    fs::write(&path, service("a", 1)).unwrap();
    let receiver = watch(folder.path()).unwrap();
    let truncated = fs::File::create(&path).unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(150) {
        assert_eq!(services(&receiver.borrow()), [("a".into(), 1)]);
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(truncated);
    let taken = wait(&receiver, |state| services(state).is_empty());
    assert!(taken < Duration::from_secs(1), "empty for good: {taken:?}");
    fs::write(&path, service("a", 2)).unwrap();
    wait(&receiver, |state| services(state) == [("a".into(), 2)]);
}

#[test]
fn a_folder_that_goes_away_is_a_problem_and_comes_back() {
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("routes");
    assert!(matches!(watch(&folder), Err(FilesError::Read { .. })));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
    let receiver = watch(&folder).unwrap();
    fs::rename(&folder, parent.path().join("away")).unwrap();
    wait(&receiver, |state| state.problems.len() == 1);
    assert_eq!(services(&receiver.borrow()), [("a".into(), 1)], "the last state stays");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), service("a", 2)).unwrap();
    wait(&receiver, |state| state.problems.is_empty() && services(state) == [("a".into(), 2)]);
}

#[test]
fn a_mounted_config_map_is_followed() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, port) in [("..1", 1), ("..2", 2)] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a.yaml"), service("a", port)).unwrap();
    }
    std::os::unix::fs::symlink("..1", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", at("a.yaml")).unwrap();
    let receiver = watch(folder.path()).unwrap();
    assert_eq!(services(&receiver.borrow()), [("a".into(), 1)]);
    std::os::unix::fs::symlink("..2", at("..tmp")).unwrap();
    fs::rename(at("..tmp"), at("..data")).unwrap();
    let taken = wait(&receiver, |state| services(state) == [("a".into(), 2)]);
    assert!(taken < Duration::from_secs(1), "{taken:?}");
}

proptest! {
    /// No object is ever in force twice, and a file that is not refused is in force as it is.
    #[test]
    fn each_object_has_one_file(
        steps in prop::collection::vec(
            prop::collection::btree_map("[a-c]", prop::collection::btree_set("[x-z]", 0..3), 0..4), 1..6),
    ) {
        let mut folder = Folder::default();
        for (port, step) in (1..).zip(steps) {
            let texts: Vec<_> = step.iter().map(|(file, names)| {
                let texts: Vec<_> = names.iter().map(|name| service(&format!("s{name}"), port)).collect();
                (format!("{file}.yaml"), texts.join("---\n"))
            }).collect();
            let files: Vec<_> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            folder.update(contents(&files));
            let state = folder.state();
            let refused: Vec<_> = state.problems.iter().map(|p| p.file.display().to_string()).collect();
            for (file, names) in &step {
                if !refused.contains(&format!("{file}.yaml")) {
                    for name in names {
                        let expected = (format!("s{name}"), port);
                        prop_assert!(services(&state).contains(&expected));
                    }
                }
            }
            let claimed: std::collections::BTreeSet<_> = step.values().flatten().collect();
            if claimed.len() == step.values().map(std::collections::BTreeSet::len).sum::<usize>() {
                prop_assert!(refused.is_empty(), "no clash: {:?}", state.problems);
            }
        }
    }
}
