//! Kubernetes YAML for the agent's folder: Services, EndpointSlices, HTTPRoutes.

use std::{
    fmt::{Display, Write as _},
    fs,
    net::{SocketAddrV4, SocketAddrV6},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use crate::node::Service;

/// The Namespace `default`, which lets routes at headless Services hold.
pub const CONSENT: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n  \
                           labels: {mirror.dev/endpoint-frontends: enabled}\n";

/// The folder that `mirror agent --routes` watches.
#[derive(Debug)]
pub struct Routes {
    folder: PathBuf,
}

impl Routes {
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Writes a file whole or not at all: a reader never sees half of it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Beside the folder, on the same file system, so that the agent sees one rename.
        let draft = self.folder.with_extension(format!("draft{count}"));
        fs::write(&draft, text).with_context(|| draft.display().to_string())?;
        fs::rename(&draft, self.folder.join(file)).with_context(|| file.to_owned())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// It is not there.
    pub fn remove(&self, file: &str) -> Result<()> {
        fs::remove_file(self.folder.join(file)).with_context(|| file.to_owned())
    }
}

impl Service {
    /// The Service and its EndpointSlices, one for each family.
    #[must_use]
    pub fn manifest(&self) -> String {
        let Self { namespace, name, cluster_ip, port, endpoints, cluster_ip6, endpoints6, .. } =
            self;
        let target = endpoints.first().map(SocketAddrV4::port);
        let target = target.or_else(|| endpoints6.first().map(SocketAddrV6::port)).unwrap_or(*port);
        let both = match cluster_ip6 {
            Some(ip) => format!("  clusterIPs: [\"{cluster_ip}\", \"{ip}\"]\n"),
            None => String::new(),
        };
        let speaks = self.speaks("    ");
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\n\
             spec:\n  clusterIP: {cluster_ip}\n{both}  ports:\n  - name: http\n    port: {port}\n    \
             targetPort: {target}\n{speaks}"
        );
        text.push_str(&self.slice("IPv4", target, endpoints.iter().map(SocketAddrV4::ip)));
        if cluster_ip6.is_some() {
            text.push_str(&self.slice("IPv6", target, endpoints6.iter().map(SocketAddrV6::ip)));
        }
        text
    }

    fn speaks(&self, indent: &str) -> String {
        self.app_protocol.map_or(String::new(), |name| format!("{indent}appProtocol: {name}\n"))
    }

    fn slice(
        &self,
        family: &str,
        target: u16,
        ready: impl ExactSizeIterator<Item = impl Display>,
    ) -> String {
        let Self { namespace, name, .. } = self;
        let speaks = self.speaks("  ");
        let number = if family == "IPv4" { 1 } else { 2 };
        let mut text = format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: \
             {name}-{number}\n  namespace: {namespace}\n  labels:\n    \
             kubernetes.io/service-name: {name}\naddressType: {family}\nports:\n- name: http\n  \
             port: {target}\n  protocol: TCP\n{speaks}"
        );
        text.push_str(if ready.len() == 0 { "endpoints: []\n" } else { "endpoints:\n" });
        // As the endpointslice controller writes them: copies go to Pods of the Service's Namespace.
        for (at, ip) in ready.enumerate() {
            let _ = writeln!(
                text,
                "- addresses: [\"{ip}\"]\n  conditions:\n    ready: true\n  targetRef:\n    kind: \
                 Pod\n    namespace: {namespace}\n    name: {name}-{at}"
            );
        }
        text
    }
}

/// A route of the namespace `default` (or another) whose parent is a Service.
#[derive(Clone, Debug)]
pub struct Route {
    kind: &'static str,
    name: String,
    namespace: String,
    parent: Service,
    rules: Vec<Rule>,
}

impl Route {
    /// An HTTPRoute without rules yet.
    #[must_use]
    pub fn new(name: &str, parent: &Service) -> Self {
        let namespace = parent.namespace.clone();
        let (kind, rules) = ("HTTPRoute", Vec::new());
        Self { kind, name: name.to_owned(), namespace, parent: parent.clone(), rules }
    }

    /// A GRPCRoute instead.
    #[must_use]
    pub fn grpc(self) -> Self {
        Self { kind: "GRPCRoute", ..self }
    }

    /// In another namespace than its parent: a consumer route.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Adds a rule after those before.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// As YAML.
    #[must_use]
    pub fn manifest(&self) -> String {
        let Self { kind, name, namespace, parent, rules } = self;
        let mut text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}\n"
        );
        if namespace != "default" {
            let _ = writeln!(text, "  namespace: {namespace}");
        }
        text.push_str("spec:\n  parentRefs:\n  - group: \"\"\n    kind: Service\n");
        let _ = writeln!(text, "    name: {}", parent.name);
        if *namespace != parent.namespace {
            let _ = writeln!(text, "    namespace: {}", parent.namespace);
        }
        let _ = writeln!(text, "    port: {}\n  rules:", parent.port);
        for rule in rules {
            text.push_str(&rule.text());
        }
        text
    }
}

/// One rule of a [`Route`].
#[derive(Clone, Debug, Default)]
pub struct Rule {
    matches: Vec<String>,
    filters: Vec<String>,
    backends: Vec<String>,
    fields: Vec<String>,
}

impl Rule {
    /// A rule with one backend.
    #[must_use]
    pub fn to(service: &str, port: u16) -> Self {
        Self { backends: vec![format!("name: {service}\nport: {port}")], ..Self::default() }
    }

    /// Adds a backend with a weight.
    #[must_use]
    pub fn backend(mut self, service: &str, port: u16, weight: u32) -> Self {
        self.backends.push(format!("name: {service}\nport: {port}\nweight: {weight}"));
        self
    }

    /// Adds a `RequestMirror` of every request.
    #[must_use]
    pub fn mirror(self, service: &str, port: u16) -> Self {
        self.filter(&mirror(service, port))
    }

    /// Adds a `RequestMirror` of a percentage of the requests.
    #[must_use]
    pub fn mirror_percent(self, service: &str, port: u16, percent: u32) -> Self {
        self.filter(&format!("{}\n  percent: {percent}", mirror(service, port)))
    }

    /// Marks the responses that an agent has carried: `x-via: agent`.
    #[must_use]
    pub fn mark(self) -> Self {
        self.filter(
            "type: ResponseHeaderModifier\nresponseHeaderModifier:\n  set:\n  - name: x-via\n    value: agent",
        )
    }

    /// Adds a filter: an item's YAML, its first line without a dash.
    #[must_use]
    pub fn filter(mut self, yaml: &str) -> Self {
        self.filters.push(yaml.to_owned());
        self
    }

    /// Adds a filter to the last backend, which has none yet: an item's YAML as above.
    #[must_use]
    pub fn backend_filter(mut self, yaml: &str) -> Self {
        let backend = self.backends.last_mut().expect("a rule with a backend");
        let _ = write!(backend, "\nfilters:\n- {}", yaml.trim_end().replace('\n', "\n  "));
        self
    }

    /// Adds a match: an item's YAML, its first line without a dash.
    #[must_use]
    pub fn matching(mut self, yaml: &str) -> Self {
        self.matches.push(yaml.to_owned());
        self
    }

    /// Adds a field that is no list: its line of YAML.
    #[must_use]
    pub fn field(mut self, yaml: &str) -> Self {
        self.fields.push(yaml.to_owned());
        self
    }

    fn text(&self) -> String {
        let parts = [
            ("matches", &self.matches),
            ("filters", &self.filters),
            ("backendRefs", &self.backends),
        ];
        let mut text = String::new();
        for (name, items) in parts.iter().filter(|(_, items)| !items.is_empty()) {
            let lead = if text.is_empty() { "  - " } else { "    " };
            let _ = writeln!(text, "{lead}{name}:");
            for item in *items {
                let _ = writeln!(text, "    - {}", item.trim_end().replace('\n', "\n      "));
            }
        }
        for field in &self.fields {
            let lead = if text.is_empty() { "  - " } else { "    " };
            let _ = writeln!(text, "{lead}{field}");
        }
        text
    }
}

fn mirror(service: &str, port: u16) -> String {
    format!(
        "type: RequestMirror\nrequestMirror:\n  backendRef:\n    name: {service}\n    port: {port}"
    )
}

/// A Pod as a cluster has it.
#[derive(Clone, Debug)]
pub struct PodDocument {
    namespace: String,
    name: String,
    uid: String,
    owners: Vec<String>,
    labels: Vec<String>,
    annotations: Vec<String>,
    spec: Vec<String>,
}

impl PodDocument {
    /// Of the namespace `default`, with one container.
    #[must_use]
    pub fn new(name: &str, uid: &str) -> Self {
        let spec = vec!["containers: [{name: app, image: app}]".to_owned()];
        let (labels, annotations) = (Vec::new(), Vec::new());
        let (namespace, name, uid) = ("default".to_owned(), name.to_owned(), uid.to_owned());
        Self { namespace, name, uid, owners: Vec::new(), labels, annotations, spec }
    }

    /// Of another namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// As the mirror that kubelet makes of a static pod, whose name ends in the node's, and whose
    /// cgroup is named after `hash`.
    #[must_use]
    pub fn static_pod(mut self, node: &str, hash: &str) -> Self {
        let node_owner = format!(
            "{{apiVersion: v1, kind: Node, name: {node}, uid: \"{hash}\", controller: true}}"
        );
        self.owners.push(node_owner);
        self.spec(&format!("nodeName: {node}"))
            .annotation("kubernetes.io/config.source", "file")
            .annotation("kubernetes.io/config.hash", hash)
            .annotation("kubernetes.io/config.mirror", hash)
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push(format!("{key}: {value:?}"));
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.push(format!("{key}: {value:?}"));
        self
    }

    /// Adds a field to `spec`, in YAML's flow style.
    #[must_use]
    pub fn spec(mut self, field: &str) -> Self {
        self.spec.push(field.to_owned());
        self
    }

    /// Its YAML.
    #[must_use]
    pub fn manifest(&self) -> String {
        let Self { namespace, name, uid, owners, labels, annotations, spec } = self;
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  namespace: {namespace}\n  name: {name}\n  \
             uid: {uid}\n  ownerReferences: [{}]\n  labels: {{{}}}\n  annotations: \
             {{{}}}\nspec: {{{}}}\n",
            owners.join(", "),
            labels.join(", "),
            annotations.join(", "),
            spec.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service {
            namespace: "default".into(),
            name: "httpbin".into(),
            cluster_ip: "10.96.0.10".parse().unwrap(),
            port: 8000,
            endpoints: vec!["10.244.0.3:80".parse().unwrap(), "10.244.0.4:80".parse().unwrap()],
            cluster_ip6: None,
            endpoints6: Vec::new(),
            app_protocol: None,
        }
    }

    #[test]
    fn the_walkthroughs_route() {
        let rule = Rule::to("httpbin-v1", 80).mirror_percent("httpbin-v2", 80, 25);
        let text = Route::new("httpbin", &service()).rule(rule).manifest();
        let expected = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: httpbin
spec:
  parentRefs:
  - group: \"\"
    kind: Service
    name: httpbin
    port: 8000
  rules:
  - filters:
    - type: RequestMirror
      requestMirror:
        backendRef:
          name: httpbin-v2
          port: 80
        percent: 25
    backendRefs:
    - name: httpbin-v1
      port: 80
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_service_and_its_endpoints() {
        let text = service().manifest();
        let (service, slice) = text.split_once("---\n").unwrap();
        assert!(
            service.contains("clusterIP: 10.96.0.10\n  ports:\n  - name: http\n    port: 8000")
        );
        assert!(slice.contains("ports:\n- name: http\n  port: 80\n"));
        assert!(slice.ends_with(
            "- addresses: [\"10.244.0.3\"]\n  conditions:\n    ready: true\n  targetRef:\n    \
             kind: Pod\n    namespace: default\n    name: httpbin-0\n\
             - addresses: [\"10.244.0.4\"]\n  conditions:\n    ready: true\n  targetRef:\n    \
             kind: Pod\n    namespace: default\n    name: httpbin-1\n"
        ));
    }
    #[test]
    fn a_dual_stack_service_has_both_addresses_and_two_slices() {
        let text = Service {
            cluster_ip6: Some("fd00:10:96::a".parse().unwrap()),
            endpoints6: vec!["[fd00:244::3]:80".parse().unwrap()],
            ..service()
        }
        .manifest();
        let documents: Vec<_> = text.split("---\n").collect();
        let [service, v4, v6] = documents[..] else { panic!("{text}") };
        assert!(service.contains("  clusterIPs: [\"10.96.0.10\", \"fd00:10:96::a\"]\n"));
        assert!(v4.contains("name: httpbin-1\n") && v4.contains("addressType: IPv4\n"));
        assert!(v6.contains("name: httpbin-2\n") && v6.contains("addressType: IPv6\n"));
        assert!(v6.contains("- addresses: [\"fd00:244::3\"]\n"));
    }

    #[test]
    fn a_service_says_what_it_speaks() {
        let h2c = Service { app_protocol: Some("kubernetes.io/h2c"), ..service() }.manifest();
        let (service, slice) = h2c.split_once("---\n").unwrap();
        assert!(service.ends_with("    targetPort: 80\n    appProtocol: kubernetes.io/h2c\n"));
        assert!(slice.contains("  protocol: TCP\n  appProtocol: kubernetes.io/h2c\nendpoints:"));
    }
}
