package mesh

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() {
	HTTPTests = append(HTTPTests, MeshHTTPRouteRequestMirror)
}

// MeshHTTPRouteRequestMirror compares copies with what the primary got, and counts them.
var MeshHTTPRouteRequestMirror = suite.ConformanceTest{
	ShortName:   "MeshHTTPRouteRequestMirror",
	Description: "An HTTPRoute mirrors each request of a rule once, with the same method, path, headers and body, and no other request",
	Manifests:   []string{"consumer-shadow.yaml", "httproute-request-mirror.yaml"},
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportReferenceGrant,
		features.SupportHTTPRoute,
		features.SupportHTTPRouteRequestMirror,
	},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		client := connect(t, s)
		client.converge(t, fromV1(http.Request{Path: "/mirror"}))
		// The routes of other tests may still be in force until then.
		echoV2.await(t, s, client.fence(t)(), 1)

		for name, request := range map[string]http.Request{
			"GET":     {Path: "/mirror/a%20b/c;d?x=1&y=%2F&x=2"},
			"HEADERS": {Path: "/mirror", Headers: map[string]string{"X-Case": "MiXed", "Cookie": "a=b; c=d"}},
			"DELETE":  {Path: "/mirror/deleted", Method: "DELETE"},
			"PUT":     {Path: "/mirror/put", Method: "PUT"},
		} {
			t.Run("The copy is the request: "+name, func(t *testing.T) {
				response, token := client.one(t, fromV1(request))
				copies := echoV2.exactly(t, s, token, 1, client.fence(t))
				if err := compare(response, copies[0]); err != nil {
					t.Error(err)
				}
			})
		}

		t.Run("The copy has the body", func(t *testing.T) {
			for _, framing := range []string{"Content-Length", "Transfer-Encoding: chunked"} {
				token := uuid.NewString()
				// The server puts this field of a form into its response, and logs that.
				sent := strings.ReplaceAll(uuid.NewString(), "-", "") + strings.Repeat("0123456789abcdef", 512)
				command := []string{"curl", "-sS", "--max-time", "5", "-H", tokenHeader + ": " + token, "--data-binary", "headers=X-Body:" + sent}
				if strings.HasPrefix(framing, "Transfer") {
					command = append(command, "-H", framing)
				}
				output := client.exec(t, append(command, "-D", "-", "http://echo/mirror/body")...)
				if !strings.Contains(output, sent) {
					t.Errorf("%s: the primary's response does not have the body: %s", framing, output)
				}
				copies := echoV2.exactly(t, s, token, 1, client.fence(t))
				if copies[0].method != "POST" || copies[0].responseHeaders["x-body"] != sent {
					t.Errorf("%s: the shadow got another body: %+v", framing, copies[0])
				}
			}
		})

		t.Run("Each request is copied once", func(t *testing.T) {
			const count = 200
			responses, token := client.many(t, fromV1(http.Request{Path: "/mirror/many"}), count)
			for _, response := range responses {
				if !strings.HasPrefix(response.Hostname, "echo-v1") {
					t.Fatalf("%s responds to the client", response.Hostname)
				}
			}
			echoV2.exactly(t, s, token, count, client.fence(t))
		})

		t.Run("Requests of other rules are not copied", func(t *testing.T) {
			_, token := client.many(t, fromV1(http.Request{Path: "/no-mirror"}), 20)
			echoV2.exactly(t, s, token, 0, client.fence(t))
		})

		t.Run("A mirror of a backend copies the requests of that backend", func(t *testing.T) {
			fence := func() string {
				_, token := client.one(t, fromV1(http.Request{Path: "/consumer-fence"}))
				return token
			}
			responses, token := client.many(t, fromV1(http.Request{Path: "/backend-mirror"}), 100)
			count := 0
			for _, response := range responses {
				if strings.HasPrefix(response.Hostname, "echo-v2") {
					count++
				}
			}
			if count == 0 || count == len(responses) {
				t.Fatalf("%d of %d requests went to the backend", count, len(responses))
			}
			consumerV1.exactly(t, s, token, count, fence)
		})
	},
}
