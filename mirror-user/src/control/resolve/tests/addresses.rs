//! Who may have an address, and where copies may go: what a tenant of a cluster writes against
//! another's, and against the node.

use std::collections::BTreeSet;

use super::*;
use crate::{
    control::objects::{Kind, Object},
    model::{ObjectName, RouteKind},
};

/// A cluster, in which `shop` may have endpoints' addresses and `evil` as well, unless a test says
/// otherwise.
struct Cluster {
    policy: AddressPolicy,
    objects: Objects,
}

const CONSENTS: &str = "mirror.dev/endpoint-frontends: enabled";

impl Cluster {
    fn new() -> Self {
        let policy = AddressPolicy {
            api_server: vec!["10.96.0.1".parse().unwrap()],
            ..AddressPolicy::of_cluster()
        };
        let mut cluster = Self { policy, objects: Objects::default() };
        cluster.label("shop", CONSENTS).label("evil", CONSENTS);
        cluster
    }

    fn add(&mut self, text: &str) -> &mut Self {
        for document in serde_saphyr::from_multiple(text).unwrap() {
            self.objects.insert(decode(document).unwrap());
        }
        self
    }

    fn label(&mut self, namespace: &str, label: &str) -> &mut Self {
        self.add(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}, labels: {{{label}}}}}}}"
        ))
    }

    /// A Service with its port 80, created at a second of 1970's first minute.
    fn service(&mut self, name: &str, address: &str, created: u8) -> &mut Self {
        let (namespace, own) = name.split_once('/').unwrap();
        self.add(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{namespace: {namespace}, name: {own}, \
             creationTimestamp: '1970-01-01T00:00:{created:02}Z'}}, spec: {{clusterIP: {address}, \
             ports: [{{name: http, port: 80}}]}}}}"
        ))
    }

    /// A slice of a Service, each endpoint as `ADDRESS` or `ADDRESS=POD`; all with port 80.
    fn slice(&mut self, service: &str, family: &str, endpoints: &[&str]) -> &mut Self {
        let (namespace, own) = service.split_once('/').unwrap();
        let endpoints = endpoints.iter().map(|text| match text.split_once('=') {
            None => format!("{{addresses: ['{text}']}}"),
            Some((ip, pod)) => {
                format!("{{addresses: ['{ip}'], targetRef: {{kind: Pod, name: {pod}}}}}")
            }
        });
        let endpoints = endpoints.collect::<Vec<_>>().join(", ");
        self.add(&format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{namespace: \
             {namespace}, name: {own}-{family}, creationTimestamp: '1970-01-01T00:00:01Z', \
             labels: {{kubernetes.io/service-name: {own}}}}}, addressType: {family}, ports: \
             [{{name: http, port: 80}}], endpoints: [{endpoints}]}}"
        ))
    }

    /// A route at a Service, to it.
    fn route(&mut self, service: &str, created: u8) -> &mut Self {
        let (namespace, own) = service.split_once('/').unwrap();
        self.add(&format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{namespace: \
             {namespace}, name: {own}, creationTimestamp: '1970-01-01T00:00:{created:02}Z'}}, spec: \
             {{parentRefs: [{{group: '', kind: Service, name: {own}}}], rules: [{{backendRefs: \
             [{{name: {own}, port: 80}}]}}]}}}}"
        ))
    }

    /// A route at `shop/web` that mirrors to a Service of the same Namespace.
    fn mirroring(&mut self, shadow: &str) -> &mut Self {
        self.service("shop/web", "10.96.0.77", 1).add(&format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{namespace: \
             shop, name: web}}, spec: {{parentRefs: [{{group: '', kind: Service, name: web}}], \
             rules: [{{filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: \
             {shadow}, port: 80}}}}}}], backendRefs: [{{name: web, port: 80}}]}}]}}}}"
        ))
    }

    fn pod(&mut self, name: &str, ip: &str) -> &mut Self {
        let (namespace, own) = name.split_once('/').unwrap();
        self.add(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{namespace: {namespace}, name: {own}, uid: \
             {own}}}, spec: {{}}, status: {{podIPs: [{{ip: '{ip}'}}]}}}}"
        ))
    }

    fn resolved(&self) -> Resolved {
        resolve(&self.policy, &self.objects)
    }

    /// Addresses and whose they are.
    fn frontends(&self) -> Vec<String> {
        let frontends = self.resolved().frontends;
        frontends.iter().map(|f| format!("{} {}", f.address, f.service)).collect()
    }

    fn accepted(&self, route: &str) -> Condition {
        let conditions = self.resolved().conditions;
        conditions.into_iter().find(|c| c.route.to_string() == route).unwrap().accepted
    }

    /// Where the copies of `shop/web` go, and its condition ResolvedRefs.
    fn shadow(&self) -> (Vec<String>, Condition) {
        let resolved = self.resolved();
        let web = resolved.frontends.iter().find(|f| f.service.name == "web").unwrap();
        let rule = found(web.producer.as_ref().unwrap(), "/").unwrap();
        let [Filter::Mirror(mirror)] = &rule.filters[..] else { panic!("{:?}", rule.filters) };
        let endpoints = mirror.target.iter().flat_map(|backend| &backend.endpoints);
        let web =
            resolved.conditions.iter().find(|status| status.route.object.name == "web").unwrap();
        let refs = web.resolved_refs.clone();
        (endpoints.map(|at| at.ip().to_string()).collect(), refs)
    }
}

/// The review's first attack, with a slice for each family.
#[test]
fn a_headless_service_takes_no_other_services_cluster_ip() {
    let mut cluster = Cluster::new();
    cluster.service("evil/a", "None", 1).route("evil/a", 1);
    cluster.slice("evil/a", "IPv4", &["10.96.0.10=mine", "10.244.0.7=mine"]);
    cluster.slice("evil/a", "IPv6", &["::ffff:10.96.0.10=mine"]);
    assert_eq!(cluster.frontends().len(), 3, "nobody's ClusterIP yet: {:?}", cluster.frontends());
    // Of a Service without any route, created long after.
    cluster.service("shop/web", "10.96.0.10", 50);
    assert_eq!(cluster.frontends(), ["10.244.0.7:80 evil/a:80"]);
    let note = cluster.accepted("evil/a");
    assert!(note.holds && note.message.contains("ClusterIP"), "{note:?}");
    cluster.route("shop/web", 51);
    assert_eq!(cluster.frontends(), ["10.244.0.7:80 evil/a:80", "10.96.0.10:80 shop/web:80"]);
    assert!(cluster.accepted("shop/web").holds);
}

#[test]
fn what_is_on_the_deny_list_is_nobodys_frontend() {
    for (family, ip, why) in [
        ("IPv4", "127.0.0.1", "loopback"),
        ("IPv4", "127.64.0.9", "mirror itself"),
        ("IPv4", "169.254.169.254", "link-local"),
        ("IPv4", "224.0.0.1", "multicast"),
        ("IPv4", "0.0.0.0", "not the address of a host"),
        ("IPv4", "255.255.255.255", "not the address of a host"),
        ("IPv4", "168.63.129.16", "metadata"),
        ("IPv4", "10.96.0.1", "API server"),
        ("IPv4", "192.0.2.5", "API server"),
        ("IPv4", "192.0.2.9", "Node"),
        ("IPv6", "::1", "loopback"),
        ("IPv6", "fd6d:6972:726f:7200::5", "mirror itself"),
        ("IPv6", "fe80::1", "link-local"),
        ("IPv6", "ff02::1", "multicast"),
        ("IPv6", "::", "not the address of a host"),
        ("IPv6", "fd00:ec2::254", "metadata"),
        ("IPv6", "::ffff:127.0.0.1", "loopback"),
        ("IPv6", "64:ff9b::a9fe:a9fe", "link-local"),
        ("IPv6", "::ffff:192.0.2.9", "Node"),
    ] {
        let mut cluster = Cluster::new();
        cluster.service("default/kubernetes", "10.96.0.1", 1);
        cluster.slice("default/kubernetes", "IPv4", &["192.0.2.5"]);
        cluster.add(
            "{apiVersion: v1, kind: Node, metadata: {name: node-1}, status: {addresses: \
                     [{type: InternalIP, address: 192.0.2.9}]}}",
        );
        cluster.service("evil/a", "None", 1).route("evil/a", 1);
        cluster.slice("evil/a", family, &[&format!("{ip}=mine")]);
        assert_eq!(cluster.frontends(), Vec::<String>::new(), "{ip}");
        let accepted = cluster.accepted("evil/a");
        assert_eq!((accepted.holds, accepted.reason), (false, "AddressRefused"), "{ip}");
        assert!(accepted.message.contains(why), "{ip}: {}", accepted.message);
        // And no copies go there, whoever permits what.
        let hard = why != "Node";
        cluster.label("shop", "mirror.dev/external-shadows: enabled");
        cluster.service("shop/s", "10.96.0.78", 1).mirroring("s");
        cluster.slice("shop/s", family, &[&format!("{ip}=mine")]);
        let (endpoints, refs) = cluster.shadow();
        assert_eq!((endpoints.is_empty(), refs.holds), (hard, !hard), "{ip}: {}", refs.message);
        assert!(!hard || refs.message.contains(why), "{ip}: {}", refs.message);
    }
}

#[test]
fn the_api_servers_own_service_is_never_captured() {
    let mut cluster = Cluster::new();
    cluster.service("default/kubernetes", "10.96.0.1", 1).route("default/kubernetes", 1);
    assert_eq!(cluster.frontends(), Vec::<String>::new());
    assert!(cluster.accepted("default/kubernetes").message.contains("API server"));
}

#[test]
fn endpoints_are_frontends_only_where_the_namespace_permits_it() {
    let mut cluster = Cluster::new();
    cluster.service("shop/db", "None", 1).route("shop/db", 1);
    cluster.slice("shop/db", "IPv4", &["10.244.0.7=db-0"]);
    assert_eq!(cluster.frontends(), ["10.244.0.7:80 shop/db:80"]);
    for label in
        ["", "mirror.dev/endpoint-frontends: disabled", "mirror.dev/endpoint-frontends: 'yes'"]
    {
        cluster.label("shop", label);
        assert_eq!(cluster.frontends(), Vec::<String>::new(), "{label}");
        let accepted = cluster.accepted("shop/db");
        assert_eq!((accepted.holds, accepted.reason), (false, "NotPermitted"));
        let what = "Label it mirror.dev/endpoint-frontends=enabled";
        assert!(accepted.message.contains(what), "{}", accepted.message);
    }
    assert!(cluster.resolved().warnings.iter().any(|w| w.object == "Namespace shop"));
}

#[test]
fn an_endpoint_is_a_frontend_only_as_a_pod_of_its_namespace_that_nothing_contradicts() {
    let mut cluster = Cluster::new();
    cluster.service("evil/a", "None", 1).route("evil/a", 1);
    let mut frontends = |endpoints: &[&str]| {
        cluster.slice("evil/a", "IPv4", endpoints);
        (cluster.frontends().len(), cluster.accepted("evil/a").message)
    };
    assert_eq!(frontends(&["10.244.0.7"]).0, 0, "no Pod");
    assert_eq!(frontends(&["10.244.0.7=mine"]).0, 1);
    cluster.pod("shop/victim", "10.244.0.7").pod("evil/mine", "10.244.0.8");
    let mut frontends = |endpoints: &[&str]| {
        cluster.slice("evil/a", "IPv4", endpoints);
        (cluster.frontends().len(), cluster.accepted("evil/a").message)
    };
    for lie in ["10.244.0.7=mine", "10.244.0.7=nobody", "10.244.0.9=mine"] {
        let (count, message) = frontends(&[lie]);
        assert_eq!(count, 0, "{lie}");
        assert!(message.contains("targetRef"), "{lie}: {message}");
    }
    assert_eq!(frontends(&["10.244.0.8=mine"]).0, 1);
}

#[test]
fn the_oldest_claim_has_an_address_and_the_next_takes_over() {
    let mut cluster = Cluster::new();
    cluster.service("shop/db", "None", 10).route("shop/db", 12);
    cluster.slice("shop/db", "IPv4", &["10.244.0.7=db-0"]);
    // By name it would come first, and its Service is older.
    cluster.service("evil/a", "None", 5).route("evil/a", 20);
    cluster.slice("evil/a", "IPv4", &["10.244.0.7=mine"]);
    assert_eq!(cluster.frontends(), ["10.244.0.7:80 shop/db:80"]);
    assert_eq!(cluster.accepted("evil/a").reason, "Conflicted");
    let service =
        cluster.objects.routes.keys().find(|name| name.object.namespace == "shop").cloned();
    cluster.objects.remove_route(&service.unwrap(), &mut Changes::default());
    assert_eq!(cluster.frontends(), ["10.244.0.7:80 evil/a:80"]);
}

#[test]
fn the_label_that_captures_ahead_displaces_no_route() {
    let mut cluster = Cluster::new();
    cluster.service("shop/db", "None", 30).route("shop/db", 31);
    cluster.slice("shop/db", "IPv4", &["10.244.0.7=db-0"]);
    cluster.add(
        "{apiVersion: v1, kind: Service, metadata: {namespace: evil, name: a, labels: \
         {mirror.dev/capture: enabled}, creationTimestamp: '1970-01-01T00:00:01Z'}, spec: \
         {clusterIP: None, ports: [{name: http, port: 80}]}}",
    );
    cluster.slice("evil/a", "IPv4", &["10.244.0.7=mine", "10.244.0.8=mine"]);
    assert_eq!(cluster.frontends(), ["10.244.0.8:80 evil/a:80", "10.244.0.7:80 shop/db:80"]);
}

#[test]
fn endpoints_of_a_service_with_a_cluster_ip_are_frontends_if_it_and_its_namespace_say_so() {
    let labelled = |value: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{namespace: shop, name: web, labels: \
             {{mirror.dev/capture-endpoints: {value}}}}}, spec: {{clusterIP: 10.96.0.10, ports: \
             [{{name: http, port: 80}}]}}}}"
        )
    };
    let told = |cluster: &Cluster| {
        let warnings = cluster.resolved().warnings;
        warnings.into_iter().map(|warning| warning.message).collect::<Vec<_>>().join("; ")
    };
    let mut cluster = Cluster::new();
    cluster.service("shop/web", "10.96.0.10", 1).route("shop/web", 2);
    cluster.slice("shop/web", "IPv4", &["10.244.0.7=web-0", "10.244.0.8=web-1", "10.244.0.9"]);
    let own = "10.96.0.10:80 shop/web:80";
    assert_eq!(cluster.frontends(), [own]);
    cluster.add(&labelled("enabled"));
    // What names no Pod is not believed here either.
    let all =
        ["10.96.0.10:80 shop/web:80", "10.244.0.7:80 shop/web:80", "10.244.0.8:80 shop/web:80"];
    let mut frontends = cluster.frontends();
    frontends.sort_by_key(|text| !text.starts_with("10.96"));
    assert_eq!(frontends, all);
    assert!(told(&cluster).is_empty(), "{}", told(&cluster));
    cluster.add(&labelled("disabled"));
    assert_eq!(cluster.frontends(), [own]);
    cluster.add(&labelled("'yes'"));
    assert_eq!(cluster.frontends(), [own]);
    assert!(told(&cluster).contains("mirror.dev/capture-endpoints=yes"), "{}", told(&cluster));
    cluster.add(&labelled("enabled")).label("shop", "team: shop");
    assert_eq!(cluster.frontends(), [own], "tenants do not own their Namespace");
    assert!(told(&cluster).contains("mirror.dev/endpoint-frontends=enabled"), "{}", told(&cluster));
    assert!(cluster.accepted("shop/web").holds, "the ClusterIP is captured all the same");
}

#[test]
fn copies_go_to_pods_of_the_shadows_namespace_or_where_it_permits_more() {
    let mut cluster = Cluster::new();
    cluster.service("shop/s", "10.96.0.78", 1).mirroring("s");
    cluster.slice("shop/s", "IPv4", &["10.244.0.7=s-0"]);
    let (endpoints, refs) = cluster.shadow();
    assert_eq!((endpoints, refs.holds), (vec!["10.244.0.7".into()], true));

    cluster.slice("shop/s", "IPv4", &["10.244.0.7=s-0", "203.0.113.9"]);
    let (endpoints, refs) = cluster.shadow();
    assert_eq!((endpoints, refs.holds), (vec!["10.244.0.7".into()], true));
    let told = "1 of 2 endpoints of Service shop/s get no copies: 203.0.113.9:80";
    assert!(refs.message.contains(told), "{}", refs.message);

    cluster.slice("shop/s", "IPv4", &["203.0.113.9"]);
    let (endpoints, refs) = cluster.shadow();
    assert_eq!((endpoints.len(), refs.holds, refs.reason), (0, false, "RefNotPermitted"));
    let remedy = "label Namespace shop mirror.dev/external-shadows=enabled";
    assert!(refs.message.contains(remedy), "{}", refs.message);

    cluster.label("shop", "mirror.dev/external-shadows: enabled");
    assert_eq!(cluster.shadow().0, ["203.0.113.9"]);
    cluster.policy.deny_shadow = vec!["203.0.113.0/24".parse().unwrap()];
    let (endpoints, refs) = cluster.shadow();
    assert_eq!(endpoints.len(), 0);
    assert!(refs.message.contains("203.0.113.0/24"), "{}", refs.message);
    assert!(!refs.message.contains("label"), "nothing permits it: {}", refs.message);
}

#[test]
fn what_a_nodes_owner_writes_may_lead_to_loopback_and_needs_no_pods() {
    let mut cluster = Cluster::new();
    cluster.policy = AddressPolicy::default();
    cluster.service("shop/s", "10.96.0.78", 1).mirroring("s");
    cluster.slice("shop/s", "IPv4", &["127.0.0.1", "203.0.113.9", "224.0.0.1"]);
    assert_eq!(cluster.shadow().0, ["127.0.0.1", "203.0.113.9"]);
    cluster.policy.deny_shadow = vec!["127.0.0.0/8".parse().unwrap()];
    assert_eq!(cluster.shadow().0, ["203.0.113.9"]);
    cluster.service("shop/db", "None", 1).route("shop/db", 1);
    cluster.slice("shop/db", "IPv4", &["10.244.0.7", "10.96.0.78"]);
    assert_eq!(cluster.frontends(), ["10.244.0.7:80 shop/db:80", "10.96.0.77:80 shop/web:80"]);
}

/// Step by step, as a followed cluster changes: a full Namespace refuses who comes, keeps who is
/// there, and gives room that has become free to the oldest that waits.
#[test]
fn a_full_namespace_displaces_nobody_and_hurts_no_other() {
    let mut cluster = Cluster::new();
    cluster.policy.namespace_frontends = 2;
    cluster.policy.frontends = 4;
    let mut resolver = Resolver::new(cluster.policy.clone());
    let mut objects = Objects::default();
    let mut live: BTreeSet<SocketAddr> = BTreeSet::new();
    let mut apply = |objects: &mut Objects, texts: &[Object], remove: Option<(Kind, &str)>| {
        let mut changes = Changes::default();
        for object in texts {
            objects.apply(object.clone(), &mut changes);
        }
        if let Some((kind, name)) = remove {
            let (namespace, name) = name.split_once('/').unwrap();
            let name = ObjectName { namespace: namespace.into(), name: name.into() };
            objects.remove(kind, &name, &mut changes);
        }
        for (address, change) in resolver.update(objects, &changes) {
            match change {
                Some(_) => live.insert(address),
                None => live.remove(&address),
            };
        }
        let accepted = resolver.conditions(objects);
        let accepted = accepted.iter().map(|c| (c.route.to_string(), c.accepted.clone()));
        let hosts = live.iter().map(|at| at.ip().to_string()).collect::<Vec<_>>();
        (hosts, accepted.collect::<HashMap<_, _>>(), resolver.refusals())
    };
    let two = |namespace: &str, name: &str, ip: &str, created: u8| {
        let mut one = Cluster { policy: AddressPolicy::default(), objects: Objects::default() };
        let full = format!("{namespace}/{name}");
        one.service(&full, ip, created).route(&full, created);
        let service = one.objects.services.values().next().cloned().unwrap();
        let route = one.objects.routes.values().next().cloned().unwrap();
        [Object::Service(service), Object::Route(route)]
    };
    apply(&mut objects, &two("evil", "c", "10.96.1.3", 3), None);
    apply(&mut objects, &two("evil", "d", "10.96.1.4", 4), None);
    // An older one that comes later displaces none; nor does one that would come first by name.
    let (hosts, accepted, refusals) = apply(&mut objects, &two("evil", "a", "10.96.1.1", 1), None);
    assert_eq!(hosts, ["10.96.1.3", "10.96.1.4"]);
    assert_eq!(accepted["evil/a"].reason, "NoRoom");
    assert!(accepted["evil/a"].message.contains("at most 2"), "{}", accepted["evil/a"].message);
    assert_eq!(refusals.frontends, [("no_room", 1)].into());
    apply(&mut objects, &two("evil", "b", "10.96.1.2", 2), None);
    // Another namespace is not concerned.
    let (hosts, ..) = apply(&mut objects, &two("shop", "z", "10.96.2.1", 9), None);
    assert_eq!(hosts, ["10.96.1.3", "10.96.1.4", "10.96.2.1"]);
    let (hosts, accepted, _) =
        apply(&mut objects, &[], Some((Kind::Route(RouteKind::Http), "evil/d")));
    assert_eq!(hosts, ["10.96.1.1", "10.96.1.3", "10.96.2.1"], "the oldest that waited");
    assert_eq!((accepted["evil/a"].holds, accepted["evil/b"].reason), (true, "NoRoom"));
    // At a start all come at once: the oldest are in.
    let all = resolve(&cluster.policy, &objects);
    let hosts: Vec<_> = all.frontends.iter().map(|f| f.address.ip().to_string()).collect();
    assert_eq!(hosts, ["10.96.1.1", "10.96.1.2", "10.96.2.1"]);
}
