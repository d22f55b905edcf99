//! What is watched: a kind of object, and which of them. In: its names. Out: the requests.
//!
//! kube's own builder (`kube::core::Request` with `WatchParams`, kube 4.2) is not used, because it
//! refuses watches of 295 s and longer, while these last 300 to 600 s, and because it adds a
//! `resourceVersion` to every watch, which a streaming list must not have to be as new as etcd.

use std::time::Duration;

use http::Request;

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// A kind of object, and a choice among its objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `apiVersion`, as `v1` or `discovery.k8s.io/v1`.
    pub api_version: &'static str,
    /// `kind`, as `EndpointSlice`.
    pub kind: &'static str,
    /// Its name in a URL, as `endpointslices`.
    pub plural: &'static str,
    fields: Option<String>,
    labels: Option<String>,
    namespace: Option<String>,
}

impl Resource {
    /// All objects of a kind, of all namespaces.
    #[must_use]
    pub const fn new(api_version: &'static str, kind: &'static str, plural: &'static str) -> Self {
        Self { api_version, kind, plural, fields: None, labels: None, namespace: None }
    }

    /// Only those that a field selector chooses: `spec.nodeName=node-1`.
    #[must_use]
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.fields = Some(selector.into());
        self
    }

    /// Only those that a label selector chooses.
    #[must_use]
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.labels = Some(selector.into());
        self
    }

    /// Only those of a namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Next page of a paged list, or the first: `limit` and `continue` (Kubernetes API concepts,
    /// "Retrieving large results sets in chunks").
    pub(super) fn page(&self, after: Option<&str>) -> Request<::kube::client::Body> {
        let mut query = vec![("limit", PAGE.to_string())];
        query.extend(after.map(|token| ("continue", token.to_owned())));
        self.request(query)
    }

    /// A watch that begins with everything there is (KEP-3157, "streaming lists"): without a
    /// resourceVersion, it is as new as a read from etcd.
    pub(super) fn streaming_list(&self, lasts: Duration) -> Request<::kube::client::Body> {
        let mut query = watching(lasts);
        query.push(("sendInitialEvents", "true".into()));
        query.push(("resourceVersionMatch", "NotOlderThan".into()));
        self.request(query)
    }

    /// A watch of what comes after a resourceVersion.
    pub(super) fn watch(&self, version: &str, lasts: Duration) -> Request<::kube::client::Body> {
        let mut query = watching(lasts);
        query.push(("resourceVersion", version.to_owned()));
        self.request(query)
    }

    fn request(&self, mut query: Vec<(&str, String)>) -> Request<::kube::client::Body> {
        query.extend(self.fields.iter().map(|selector| ("fieldSelector", selector.clone())));
        query.extend(self.labels.iter().map(|selector| ("labelSelector", selector.clone())));
        let query: Vec<_> =
            query.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        let mut request = Request::new(::kube::client::Body::empty());
        let target = format!("{}?{}", self.path(), query.join("&"));
        *request.uri_mut() = target.parse().expect("every byte is one that a URL may have");
        request
    }

    fn path(&self) -> String {
        let root = if self.api_version.contains('/') { "/apis" } else { "/api" };
        let namespace = self.namespace.as_ref();
        let namespace =
            namespace.map_or_else(String::new, |name| format!("/namespaces/{}", escape(name)));
        format!("{root}/{}{namespace}/{}", self.api_version, self.plural)
    }
}

fn watching(lasts: Duration) -> Vec<(&'static str, String)> {
    vec![
        ("watch", "true".into()),
        ("allowWatchBookmarks", "true".into()),
        ("timeoutSeconds", lasts.as_secs().to_string()),
    ]
}

/// Percent-encodes all but the unreserved characters (RFC 3986, 2.3).
fn escape(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let bytes = text.bytes().map(|byte| match unreserved(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_the_api() {
        let pods = Resource::new("v1", "Pod", "pods").fields("spec.nodeName=node-1");
        let uri = |request: Request<_>| request.uri().to_string();
        assert_eq!(
            uri(pods.page(None)),
            "/api/v1/pods?limit=500&fieldSelector=spec.nodeName%3Dnode-1"
        );
        assert_eq!(
            uri(pods.page(Some("a+/b=&"))),
            "/api/v1/pods?limit=500&continue=a%2B%2Fb%3D%26&fieldSelector=spec.nodeName%3Dnode-1"
        );
        let slices = Resource::new("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
            .namespace("a b")
            .labels("x in (y)");
        assert_eq!(
            uri(slices.watch("12", Duration::from_secs(300))),
            "/apis/discovery.k8s.io/v1/namespaces/a%20b/endpointslices?watch=true&\
             allowWatchBookmarks=true&timeoutSeconds=300&resourceVersion=12&\
             labelSelector=x%20in%20%28y%29"
        );
        assert_eq!(
            uri(Resource::new("v1", "Service", "services").streaming_list(Duration::from_secs(5))),
            "/api/v1/services?watch=true&allowWatchBookmarks=true&timeoutSeconds=5&\
             sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        );
    }
}
