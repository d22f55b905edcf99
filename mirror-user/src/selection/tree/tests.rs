//! Where pods' cgroups are found, and where a name alone is not believed.

use super::*;

const UID: &str = "0a95e3f0-55a6-4c0c-8f06-8a4ee1b1d1c5";
const SLICE: &str = "pod0a95e3f0_55a6_4c0c_8f06_8a4ee1b1d1c5.slice";
const HASH: &str = "2f8dd6d7ab6a2b2f24f6c9a9d3f6b3d1";

/// A tree of folders, and other folders as a node has them.
fn tree(folders: &[&str]) -> (tempfile::TempDir, Tree) {
    let root = tempfile::tempdir().unwrap();
    let others = ["init.scope", "system.slice/containerd.service", "user.slice/podman-0.slice"];
    for folder in others.iter().chain(folders) {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let tree = Tree::new(root.path().to_owned(), None);
    (root, tree)
}

/// Makes a folder say that processes are in it.
fn populate(root: &tempfile::TempDir, folder: &str) {
    fs::write(root.path().join(folder).join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
}

fn uids(uids: &[&str]) -> BTreeSet<Box<str>> {
    uids.iter().map(|uid| (*uid).into()).collect()
}

/// Where a pod is found in a tree.
fn found_in(root: &tempfile::TempDir, tree: &mut Tree, uid: &str) -> Option<String> {
    let path = tree.find(&uids(&[uid]), Instant::now()).remove(uid)?;
    assert!(tree.has(&path));
    Some(path.strip_prefix(root.path()).unwrap().display().to_string())
}

/// Where a pod is found among these folders.
fn found(folders: &[&str], uid: &str) -> Option<String> {
    let (root, mut tree) = tree(folders);
    found_in(&root, &mut tree, uid)
}

#[test]
fn every_driver_quality_of_service_and_nesting() {
    let systemd = [
        format!("kubepods.slice/kubepods-{SLICE}"),
        format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{SLICE}"),
        format!("kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-{SLICE}"),
        // As in kind, seen from inside its node and from the machine.
        format!(
            "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
             kubelet-kubepods-burstable-{SLICE}"
        ),
        format!(
            "system.slice/docker-77aa.scope/kubelet.slice/kubelet-kubepods.slice/\
             kubelet-kubepods-{SLICE}"
        ),
    ];
    let cgroupfs = [
        format!("kubepods/pod{UID}"),
        format!("kubepods/burstable/pod{UID}"),
        format!("kubepods/besteffort/pod{UID}"),
        format!("kubelet/kubepods/besteffort/pod{UID}"),
        format!("docker/77aa/kubelet/kubepods/burstable/pod{UID}"),
    ];
    for folder in systemd.iter().chain(&cgroupfs) {
        assert_eq!(found(&[folder], UID).as_ref(), Some(folder));
        // Its containers are no pods, nor are those of a cluster inside it.
        let inner = format!("{folder}/cri-containerd-12.scope/kubepods/pod{HASH}");
        assert_eq!(found(&[&inner], HASH), None);
    }
}

#[test]
fn a_static_pod_is_found_by_its_hash() {
    for folder in [
        format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{HASH}.slice"),
        format!("kubepods/burstable/pod{HASH}"),
    ] {
        assert_eq!(found(&[&folder], HASH), Some(folder));
    }
}

#[test]
fn a_pods_name_where_kubelet_makes_no_pods_is_not_taken() {
    for folder in [
        // Of a service, or a container that is no pod's, that may write its own cgroup.
        format!("system.slice/web.service/pod{UID}"),
        format!("machines/pods/pod{UID}"),
        format!("user.slice/user-1000.slice/user-1000-{SLICE}"),
        // Not quite kubelet's.
        format!("kubepods/other/pod{UID}"),
        format!("kubepods/burstable/besteffort/pod{UID}"),
        format!("kubepods/burstable/burstable/pod{UID}"),
        format!("kubepods/kubepods-{SLICE}"),
        format!("kubepods.slice/pod{UID}"),
        format!("kubepods.slice/{SLICE}"),
        format!("kubepods.slice/other-{SLICE}"),
        format!("kubepods.slice/kubepods-burstable.slice/kubepods-{SLICE}"),
        format!("kubepods.slice/kubepods-burstable.slice/kubepods-besteffort-{SLICE}"),
        format!("kubepods.slice/burstable/pod{UID}"),
        // Inside another pod, beside its containers and in one.
        format!("kubepods/pod{HASH}/pod{UID}"),
        format!("kubepods/pod{HASH}/12/kubepods/pod{UID}"),
        format!("kubepods/pod{HASH}/kubepods.slice/kubepods-{SLICE}"),
        // Inside one whose parent is unknown.
        format!("machines/pod{HASH}/kubepods/pod{UID}"),
    ] {
        assert_eq!(found(&[&folder], UID), None, "{folder}");
    }
}

#[test]
fn a_deeper_folder_with_processes_does_not_stand_against_the_nodes_own() {
    let nodes = format!("kubepods.slice/kubepods-pod{HASH}.slice");
    let forged = format!("system.slice/web.service/kubepods.slice/kubepods-{SLICE}");
    let (root, mut tree) = tree(&[&nodes, &forged]);
    for folder in ["kubepods.slice", &nodes, "system.slice/web.service/kubepods.slice", &forged] {
        populate(&root, folder);
    }
    // The victim's own is not there yet.
    assert_eq!(found_in(&root, &mut tree, UID), None);
    let own = format!("kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-{SLICE}");
    fs::create_dir_all(root.path().join(&own)).unwrap();
    assert_eq!(found_in(&root, &mut tree, UID), Some(own));
}

#[test]
fn what_was_found_before_the_nodes_own_folder_came_is_let_go() {
    let forged = format!("system.slice/web.service/kubepods.slice/kubepods-{SLICE}");
    let (root, mut tree) = tree(&[&forged]);
    populate(&root, "system.slice/web.service/kubepods.slice");
    let start = Instant::now();
    let taken = tree.find(&uids(&[UID]), start).remove(UID).unwrap();
    assert!(tree.has(&taken));
    let nodes = format!("kubepods.slice/kubepods-pod{HASH}.slice");
    fs::create_dir_all(root.path().join(&nodes)).unwrap();
    populate(&root, "kubepods.slice");
    // Some other pod is missing, so that the tree is walked.
    tree.find(&uids(&["0a95e3f0-0000-0000-0000-000000000000"]), start + WALK);
    assert!(!tree.has(&taken));
    assert!(tree.find(&uids(&[UID]), start + WALK).is_empty());
}

#[test]
fn an_agent_in_a_pod_believes_the_folder_that_it_is_in() {
    let nodes = format!("docker/77/kubelet/kubepods/burstable/pod{UID}");
    let shallow = format!("kubepods/pod{HASH}");
    let (root, _) = tree(&[&nodes, &shallow]);
    populate(&root, "kubepods");
    let agent = root
        .path()
        .join("docker/77/kubelet/kubepods/burstable/pod11111111-1111-1111-1111-111111111111/12");
    let mut tree = Tree::new(root.path().to_owned(), Some(&agent));
    assert_eq!(found_in(&root, &mut tree, UID), Some(nodes));
    assert_eq!(found_in(&root, &mut tree, HASH), None);
    // One that is not quite in a pod says nothing.
    for agent in ["docker/77/kubelet/kubepods/burstable", "docker/77", "docker/77/kubepods/x/12"] {
        let mut tree = Tree::new(root.path().to_owned(), Some(&root.path().join(agent)));
        assert_eq!(found_in(&root, &mut tree, HASH), Some(shallow.clone()), "{agent}");
    }
}

#[test]
fn another_pods_cgroup_is_not_taken() {
    let other = UID.replace('0', "1");
    let folders = [&*format!("kubepods/pod{other}"), &*format!("kubepods/pod{UID}-x")];
    assert_eq!(found(&folders, UID), None);
    for name in ["pod", "podman.slice", "machine-libpod_pod_77.slice", "x-pod.slice", "pod12"] {
        assert!(!names::may_be_a_pods(name), "{name}");
    }
}

#[test]
fn once_kubelets_folders_are_known_nothing_else_is_looked_through() {
    let first = format!("kubelet/kubepods/pod{UID}");
    let (root, mut tree) = tree(&[&first]);
    let start = Instant::now();
    assert_eq!(tree.find(&uids(&[UID]), start).len(), 1);
    // Of the other driver.
    let elsewhere = root.path().join(format!("kubepods.slice/kubepods-pod{HASH}.slice"));
    fs::create_dir_all(&elsewhere).unwrap();
    populate(&root, "kubepods.slice");
    assert_eq!(tree.find(&uids(&[HASH]), start + WALK / 2).len(), 0);
    assert_eq!(tree.find(&uids(&[HASH]), start + WALK).len(), 1);
    // And now that place is known as well.
    fs::remove_dir(&elsewhere).unwrap();
    assert_eq!(tree.find(&uids(&[HASH]), start + WALK).len(), 0);
    fs::create_dir_all(&elsewhere).unwrap();
    assert_eq!(tree.find(&uids(&[HASH]), start + WALK).len(), 1);
}

#[test]
fn a_walk_ends_however_many_folders_there_are() {
    let (root, mut tree) = tree(&[]);
    for number in 0..MAX_FOLDERS {
        fs::create_dir(root.path().join(format!("user.slice/{number}"))).unwrap();
    }
    let begun = Instant::now();
    assert!(tree.find(&uids(&[UID]), begun).is_empty());
    assert!(begun.elapsed() < WALK, "{:?}", begun.elapsed());
}

#[test]
fn a_new_quality_of_service_below_a_known_folder_is_seen_at_once() {
    let (root, mut tree) = tree(&["kubepods.slice"]);
    let start = Instant::now();
    assert!(tree.find(&uids(&[UID]), start).is_empty());
    let folder = format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{SLICE}");
    fs::create_dir_all(root.path().join(folder)).unwrap();
    assert_eq!(tree.find(&uids(&[UID]), start).len(), 1);
}
