package mesh

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() {
	HTTPTests = append(HTTPTests, MeshHTTPRouteRequestMultipleMirrors)
}

// MeshHTTPRouteRequestMultipleMirrors has shadows in two namespaces, and one shadow twice.
var MeshHTTPRouteRequestMultipleMirrors = suite.ConformanceTest{
	ShortName:   "MeshHTTPRouteRequestMultipleMirrors",
	Description: "An HTTPRoute with several RequestMirror filters in a rule sends a copy for each of them",
	Manifests:   []string{"consumer-shadow.yaml", "httproute-request-multiple-mirrors.yaml"},
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportReferenceGrant,
		features.SupportHTTPRoute,
		features.SupportHTTPRouteRequestMirror,
		features.SupportHTTPRouteRequestMultipleMirrors,
	},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		client := connect(t, s)
		client.converge(t, fromV1(http.Request{Path: "/several"}))
		for _, shadow := range []shadow{echoV2, consumerV1} {
			shadow.await(t, s, client.fence(t)(), 1)
		}

		t.Run("Each shadow gets a copy", func(t *testing.T) {
			response, token := client.one(t, fromV1(http.Request{Path: "/several?q=1"}))
			for _, shadow := range []shadow{echoV2, consumerV1} {
				copies := shadow.exactly(t, s, token, 1, client.fence(t))
				if err := compare(response, copies[0]); err != nil {
					t.Errorf("%v: %v", shadow, err)
				}
			}
			_, token = client.many(t, fromV1(http.Request{Path: "/several"}), 50)
			for _, shadow := range []shadow{echoV2, consumerV1} {
				shadow.exactly(t, s, token, 50, client.fence(t))
			}
		})

		t.Run("A shadow that is named twice gets two copies", func(t *testing.T) {
			_, token := client.many(t, fromV1(http.Request{Path: "/twice"}), 20)
			echoV2.exactly(t, s, token, 40, client.fence(t))
			consumerV1.exactly(t, s, token, 0, client.fence(t))
		})
	},
}
