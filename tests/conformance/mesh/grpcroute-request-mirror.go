package mesh

import (
	"maps"
	"math"
	"strings"
	"testing"

	"github.com/google/uuid"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() {
	GRPCTests = append(GRPCTests, MeshGRPCRouteRequestMirror)
}

// caseHeader chooses the rule.
const caseHeader = "X-Mirror-Case"

// grpc is a call that a rule of the manifest matches.
func grpc(rule string, headers map[string]string) http.ExpectedResponse {
	all := map[string]string{caseHeader: rule}
	maps.Copy(all, headers)
	return fromV1(http.Request{Protocol: "grpc", Host: "echo:7070", Headers: all})
}

// MeshGRPCRouteRequestMirror compares copies of calls with what the primary got, and counts them.
var MeshGRPCRouteRequestMirror = suite.ConformanceTest{
	ShortName:   "MeshGRPCRouteRequestMirror",
	Description: "A GRPCRoute mirrors each call of a rule once for each mirror, or a share of them, with the same message and headers, as the filters before the mirror have left it",
	Manifests:   []string{"grpcroute-request-mirror.yaml"},
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportGRPCRoute,
	},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		client := connect(t, s)
		fence := func() string {
			_, token := client.one(t, grpc("one", nil))
			return token
		}
		client.converge(t, grpc("one", nil))
		echoV2.await(t, s, fence(), 1)

		for _, rule := range []string{"one", "method"} {
			t.Run("The copy is the call: "+rule, func(t *testing.T) {
				response, token := client.one(t, grpc(rule, map[string]string{"X-Case": "MiXed"}))
				copies := echoV2.exactly(t, s, token, 1, fence)
				if err := compareHeaders(response, copies[0]); err != nil {
					t.Error(err)
				}
			})
		}

		t.Run("The copy has the message", func(t *testing.T) {
			token := uuid.NewString()
			message := uuid.NewString() + strings.Repeat("0123456789abcdef", 256)
			client.exec(t, "client", "grpc://echo:7070", "--msg="+message, "-H", tokenHeader+":"+token, "-H", caseHeader+":one")
			copies := echoV2.exactly(t, s, token, 1, fence)
			if copies[0].message != message {
				t.Errorf("the shadow got %d bytes of the message, or others", len(copies[0].message))
			}
		})

		for _, tc := range []struct {
			rule   string
			copies int
		}{{"one", 1}, {"several", 2}, {"none", 0}} {
			t.Run("Each call is copied for each mirror: "+tc.rule, func(t *testing.T) {
				const count = 100
				_, token := client.many(t, grpc(tc.rule, nil), count)
				echoV2.exactly(t, s, token, count*tc.copies, fence)
			})
		}

		for rule, share := range map[string]float64{"percent": 0.2, "fraction": 1.0 / 3} {
			t.Run("A share of the calls is copied: "+rule, func(t *testing.T) {
				const count = 600
				_, token := client.many(t, grpc(rule, nil), count)
				margin := deviations * math.Sqrt(count*share*(1-share))
				least, most := count*share-margin, count*share+margin
				echoV2.await(t, s, token, int(math.Ceil(least)))
				copies := float64(len(echoV2.settled(t, s, token, fence)))
				if copies < least || copies > most {
					t.Errorf("%v copies are not within %.1f to %.1f", copies, least, most)
				}
			})
		}

		for rule, headers := range map[string]map[string]string{
			"modify-mirror": modified,
			"mirror-modify": {"X-Header-Set": "old", "X-Header-Remove": "old", "X-Header-Add": ""},
		} {
			t.Run("Filters act in their order: "+rule, func(t *testing.T) {
				response, token := client.one(t, grpc(rule, sent))
				if got := response.RequestHeaders.Get("X-Header-Set"); got != "new" {
					t.Errorf("the primary got X-Header-Set %q", got)
				}
				copies := echoV2.exactly(t, s, token, 1, fence)
				expectHeaders(t, copies[0], headers)
			})
		}
	},
}
