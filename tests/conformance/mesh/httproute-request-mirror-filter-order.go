package mesh

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() {
	HTTPTests = append(HTTPTests, MeshHTTPRouteRequestMirrorFilterOrder)
}

const origin = "http://page.example"

// orderCase is one request to a rule with a mirror and another filter.
type orderCase struct {
	path    string
	method  string
	headers map[string]string
	// Of the response.
	status          int
	responseHeaders map[string]string
	// What the primary gets; without, a filter responds.
	primary string
	// What the shadow gets: no copy without a path. An empty value of a header: it is absent.
	copy, host  string
	copyHeaders map[string]string
}

var (
	sent     = map[string]string{"X-Header-Set": "old", "X-Header-Remove": "old"}
	modified = map[string]string{"X-Header-Set": "new", "X-Header-Add": "added", "X-Header-Remove": ""}
	allowed  = map[string]string{"Access-Control-Allow-Origin": origin}
	// preflight asks for a method that needs it.
	preflight = map[string]string{"Origin": origin, "Access-Control-Request-Method": "PUT"}
)

var orderCases = []orderCase{
	{
		path: "/modify-mirror", headers: sent, status: 200,
		primary: "/modify-mirror", copy: "/modify-mirror", copyHeaders: modified,
	},
	{
		path: "/mirror-modify", headers: sent, status: 200,
		primary: "/mirror-modify", copy: "/mirror-modify",
		copyHeaders: map[string]string{"X-Header-Set": "old", "X-Header-Remove": "old", "X-Header-Add": ""},
	},
	{
		path: "/rewrite-mirror/one", status: 200,
		primary: "/rewritten/one", copy: "/rewritten/one", host: "rewritten.example",
	},
	{
		path: "/mirror-rewrite/one", status: 200,
		primary: "/rewritten/one", copy: "/mirror-rewrite/one",
	},
	{
		path: "/response-mirror", status: 200, responseHeaders: map[string]string{"X-Response": "set"},
		primary: "/response-mirror", copy: "/response-mirror",
	},
	{
		path: "/mirror-response", status: 200, responseHeaders: map[string]string{"X-Response": "set"},
		primary: "/mirror-response", copy: "/mirror-response",
	},
	{
		path: "/mirror-redirect", status: 302,
		responseHeaders: map[string]string{"Location": "http://elsewhere.example/mirror-redirect"},
		copy:            "/mirror-redirect",
	},
	// The first filter responds: there is no request for the one behind it.
	{
		path: "/redirect-mirror", status: 302,
		responseHeaders: map[string]string{"Location": "http://elsewhere.example/redirect-mirror"},
	},
	{
		path: "/cors-mirror", headers: map[string]string{"Origin": origin}, status: 200,
		responseHeaders: allowed, primary: "/cors-mirror", copy: "/cors-mirror",
	},
	{
		path: "/mirror-cors", headers: map[string]string{"Origin": origin}, status: 200,
		responseHeaders: allowed, primary: "/mirror-cors", copy: "/mirror-cors",
	},
	{path: "/cors-mirror", method: "OPTIONS", headers: preflight, status: 204, responseHeaders: allowed},
	{
		path: "/mirror-cors", method: "OPTIONS", headers: preflight, status: 204,
		responseHeaders: allowed, copy: "/mirror-cors",
	},
}

// MeshHTTPRouteRequestMirrorFilterOrder has a mirror before and behind each other filter.
var MeshHTTPRouteRequestMirrorFilterOrder = suite.ConformanceTest{
	ShortName:   "MeshHTTPRouteRequestMirrorFilterOrder",
	Description: "An HTTPRoute copies a request as the filters before the mirror have left it",
	Manifests:   []string{"httproute-request-mirror-filter-order.yaml"},
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		features.SupportHTTPRouteRequestMirror,
		features.SupportHTTPRouteResponseHeaderModification,
		features.SupportHTTPRouteHostRewrite,
		features.SupportHTTPRoutePathRewrite,
		features.SupportHTTPRouteCORS,
	},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		client := connect(t, s)
		client.converge(t, fromV1(http.Request{Path: fencePath}))
		echoV2.await(t, s, client.fence(t)(), 1)
		for _, tc := range orderCases {
			t.Run(tc.method+tc.path, func(t *testing.T) { tc.run(t, client) })
		}
	},
}

func (tc orderCase) run(t *testing.T, client meshClient) {
	expected := fromV1(http.Request{Path: tc.path, Method: tc.method, Headers: tc.headers})
	expected.Response = http.Response{StatusCodes: []int{tc.status}, Headers: tc.responseHeaders}
	if tc.primary == "" {
		expected.Backend = ""
	}
	response, token := client.one(t, expected)
	if response.URL != tc.primary {
		t.Errorf("the primary got %q, not %q", response.URL, tc.primary)
	}
	count := 1
	if tc.copy == "" {
		count = 0
	}
	copies := echoV2.exactly(t, client.suite, token, count, client.fence(t))
	if count == 0 {
		return
	}
	if copies[0].url != tc.copy {
		t.Errorf("the copy has the path %q, not %q", copies[0].url, tc.copy)
	}
	host := tc.host
	if host == "" {
		host = expected.Request.Host
	}
	if want := shadowHost(host); copies[0].host != want {
		t.Errorf("the copy has the host %q, not %q", copies[0].host, want)
	}
	expectHeaders(t, copies[0], tc.copyHeaders)
}
