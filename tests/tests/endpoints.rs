//! Clients that connect to a Service's endpoints instead of the Service, as ingress controllers do.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{fs, time::Duration};

use mirror_tests::{
    Agent, Copies, Echo, Pair, Pod, Process, Service, eventually,
    manifest::{Route, Rule},
    pair::config,
};

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n  labels:\n    \
                         mirror.dev/endpoint-frontends: enabled\n";

/// nginx in the client's pod: an ingress controller that knows the address of a pod.
fn ingress(pair: &Pair, to: &Pod) -> Process {
    let folder = pair.node.folder().join("ingress");
    fs::create_dir_all(&folder).unwrap();
    let at = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
        .concat();
    let text = format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {at}/pid;\nevents {{}}\nhttp {{\n\
         {temporary}access_log off;\nserver {{\nlisten 127.0.0.1:8080;\n\
         location / {{ proxy_pass http://{}:80; proxy_set_header Host shop.example; }}\n}}\n}}\n",
        to.ip()
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text).unwrap();
    let argv = ["nginx", "-c", &file.to_string_lossy(), "-e", "/dev/stderr"];
    let mut process = pair.client.spawn("ingress", &argv).unwrap();
    pair.client.listening(&mut process, 8080).unwrap();
    process
}

/// Twenty requests to the ingress controller, one by one.
fn requests(pair: &Pair, tag: &str) {
    let url = format!("http://127.0.0.1:8080/get?id={tag}-[1-20]");
    let codes =
        pair.run(&["curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code} ", &url]);
    assert_eq!(codes.unwrap(), "200 ".repeat(20));
}

/// Writes the Service, with the label or without it, and waits until its frontends are so many.
fn apply(pair: &Pair, agent: &Agent<'_>, service: &Service, labelled: bool, frontends: usize) {
    let label = "\n  labels:\n    mirror.dev/capture-endpoints: enabled";
    let name = format!("  name: {}", service.name);
    let text = service.manifest();
    let text = if labelled { text.replacen(&name, &format!("{name}{label}"), 1) } else { text };
    pair.node.routes().write("shop.yaml", &(text + "---\n" + NAMESPACE)).unwrap();
    eventually("its frontends", Duration::from_secs(5), || {
        config(agent).unwrap()["frontends"].as_object().unwrap().len() == frontends
    })
    .unwrap();
}

#[test]
fn requests_of_an_ingress_controller_are_mirrored_where_the_service_asks_for_it() {
    let pair = Pair::create("endpoints").unwrap();
    let [first, shadow] = pair.echoes().unwrap();
    let (second_pod, _) = pair.another("second").unwrap();
    let second = Echo::start(&pair.node, &second_pod).unwrap();
    let shop = pair.node.service("shop", 8000, 80, &[&pair.primary, &second_pod]).unwrap();
    pair.node.routes().write("shop.yaml", &(shop.manifest() + "---\n" + NAMESPACE)).unwrap();
    let route = Route::new("shop", &shop).rule(Rule::to("shop", 8000).mirror("shadow", 80));
    pair.node.routes().write("route.yaml", &route.manifest()).unwrap();
    let _ingress = ingress(&pair, &second_pod);
    for endpoints in ["service", "mirror"] {
        let before = [first.seen().len(), second.seen().len(), shadow.seen().len()];
        let agent = pair.agent(&["--endpoints", endpoints]).unwrap();
        apply(&pair, &agent, &shop, false, 1);
        requests(&pair, &format!("{endpoints}-untouched"));
        assert_eq!(Copies::settled(&agent).unwrap(), Copies::default());
        apply(&pair, &agent, &shop, true, 3);
        requests(&pair, &format!("{endpoints}-mirrored"));
        let copies = Copies::settled(&agent).unwrap();
        assert_eq!((copies.selected, copies.delivered), (20, 20), "{}", agent.log());
        // The pod that the ingress controller chose, and no other of the Service.
        let after = [first.seen().len(), second.seen().len(), shadow.seen().len()];
        assert_eq!(after, [before[0], before[1] + 40, before[2] + 20], "--endpoints {endpoints}");
        let hosts = shadow.wait(&format!("id={endpoints}-mirrored-"), 20).unwrap();
        assert!(hosts.iter().all(|line| line["host"] == "shop.example-shadow"), "{hosts:?}");
        apply(&pair, &agent, &shop, false, 1);
        requests(&pair, &format!("{endpoints}-again"));
        assert_eq!(Copies::settled(&agent).unwrap().selected, 20);
        drop(agent);
    }
}
