package mesh

import (
	"context"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() {
	GRPCTests = append(GRPCTests, MeshGRPCRouteRequestMirrorInvalidBackendRef)
}

// MeshGRPCRouteRequestMirrorInvalidBackendRef has a mirror whose backendRef leads nowhere.
var MeshGRPCRouteRequestMirrorInvalidBackendRef = suite.ConformanceTest{
	ShortName:   "MeshGRPCRouteRequestMirrorInvalidBackendRef",
	Description: "A GRPCRoute whose mirror cannot be resolved says so in its status, and its primary gets all calls",
	Manifests:   []string{"grpcroute-request-mirror-invalid-backend-ref.yaml"},
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportGRPCRoute,
	},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		client := connect(t, s)
		route := types.NamespacedName{Name: "mesh-grpc-mirror-not-found", Namespace: suite.MeshNamespace}
		for kind, status := range map[gatewayv1.RouteConditionType]metav1.ConditionStatus{
			gatewayv1.RouteConditionAccepted:     metav1.ConditionTrue,
			gatewayv1.RouteConditionResolvedRefs: metav1.ConditionFalse,
		} {
			grpcRouteMustHave(t, s, route, func(condition metav1.Condition) bool {
				return condition.Type == string(kind) && condition.Status == status &&
					(status == metav1.ConditionTrue || condition.Reason == string(gatewayv1.RouteReasonBackendNotFound))
			})
		}
		client.converge(t, grpc("any", nil))
		client.many(t, grpc("any", nil), 20)
	},
}

// grpcRouteMustHave waits until a parent of the route has such a condition of its latest generation.
func grpcRouteMustHave(t *testing.T, s *suite.ConformanceTestSuite, name types.NamespacedName, is func(metav1.Condition) bool) {
	t.Helper()
	route := new(gatewayv1.GRPCRoute)
	poll := func(ctx context.Context) (bool, error) {
		if err := s.Client.Get(ctx, name, route); err != nil {
			return false, err
		}
		for _, parent := range route.Status.Parents {
			if slices.ContainsFunc(parent.Conditions, func(condition metav1.Condition) bool {
				return condition.ObservedGeneration == route.Generation && is(condition)
			}) {
				return true, nil
			}
		}
		return false, nil
	}
	err := wait.PollUntilContextTimeout(t.Context(), s.TimeoutConfig.DefaultPollInterval, s.TimeoutConfig.HTTPRouteMustHaveCondition, true, poll)
	if err != nil {
		t.Fatalf("%s: %v: %+v", name, err, route.Status.Parents)
	}
}
