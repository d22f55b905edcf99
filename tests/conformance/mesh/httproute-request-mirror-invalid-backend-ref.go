package mesh

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() {
	HTTPTests = append(HTTPTests, MeshHTTPRouteRequestMirrorInvalidBackendRef)
}

// MeshHTTPRouteRequestMirrorInvalidBackendRef has mirrors whose backendRef leads nowhere.
var MeshHTTPRouteRequestMirrorInvalidBackendRef = suite.ConformanceTest{
	ShortName:   "MeshHTTPRouteRequestMirrorInvalidBackendRef",
	Description: "An HTTPRoute whose mirror cannot be resolved says so in its status, and its primary gets all requests",
	Manifests:   []string{"consumer-shadow.yaml", "httproute-request-mirror-invalid-backend-ref.yaml"},
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportReferenceGrant,
		features.SupportHTTPRoute,
		features.SupportHTTPRouteRequestMirror,
		features.SupportHTTPRouteRequestMultipleMirrors,
	},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		client := connect(t, s)
		client.converge(t, fromV1(http.Request{Path: fencePath}))
		echoV2.await(t, s, client.fence(t)(), 1)

		for _, tc := range []struct {
			route, path string
			reason      gatewayv1.RouteConditionReason
			// Copies of each request at echo-v2.
			copies int
		}{
			{"mesh-mirror-not-found", "/not-found", gatewayv1.RouteReasonBackendNotFound, 0},
			{"mesh-mirror-invalid-kind", "/invalid-kind", gatewayv1.RouteReasonInvalidKind, 0},
			{"mesh-mirror-not-permitted", "/not-permitted", gatewayv1.RouteReasonRefNotPermitted, 0},
			{"mesh-mirror-partly", "/partly", gatewayv1.RouteReasonBackendNotFound, 1},
		} {
			t.Run(tc.route, func(t *testing.T) {
				route := types.NamespacedName{Name: tc.route, Namespace: suite.MeshNamespace}
				parent := types.NamespacedName{Name: "echo", Namespace: suite.MeshNamespace}
				for _, condition := range []metav1.Condition{
					{
						Type:   string(gatewayv1.RouteConditionAccepted),
						Status: metav1.ConditionTrue,
						Reason: string(gatewayv1.RouteReasonAccepted),
					},
					{
						Type:   string(gatewayv1.RouteConditionResolvedRefs),
						Status: metav1.ConditionFalse,
						Reason: string(tc.reason),
					},
				} {
					kubernetes.HTTPRouteMustHaveCondition(t, s.Client, s.TimeoutConfig, route, parent, condition)
				}
				const count = 20
				client.converge(t, fromV1(http.Request{Path: tc.path}))
				_, token := client.many(t, fromV1(http.Request{Path: tc.path}), count)
				echoV2.exactly(t, s, token, count*tc.copies, client.fence(t))
				if got := consumerV1.await(t, s, token, 0); len(got) > 0 {
					t.Errorf("%d copies went to a namespace that permits none", len(got))
				}
			})
		}
	},
}
