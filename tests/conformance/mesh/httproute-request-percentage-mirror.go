package mesh

import (
	"math"
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func init() {
	HTTPTests = append(HTTPTests, MeshHTTPRouteRequestPercentageMirror)
}

// deviations is the half-width of what is accepted, in standard deviations of the binomial distribution:
// a right share fails once in 15,000 runs.
const deviations = 4.0

// MeshHTTPRouteRequestPercentageMirror counts the copies of a share of the requests.
var MeshHTTPRouteRequestPercentageMirror = suite.ConformanceTest{
	ShortName:   "MeshHTTPRouteRequestPercentageMirror",
	Description: "An HTTPRoute mirrors a percentage or a fraction of the requests",
	Manifests:   []string{"httproute-request-percentage-mirror.yaml"},
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		features.SupportHTTPRouteRequestMirror,
		features.SupportHTTPRouteRequestPercentageMirror,
	},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		client := connect(t, s)
		client.converge(t, fromV1(http.Request{Path: "/percent-100"}))
		echoV2.await(t, s, client.fence(t)(), 1)

		for _, tc := range []struct {
			path  string
			count int
			share float64
		}{
			{"/percent-0", 100, 0},
			{"/percent-100", 100, 1},
			{"/percent-20", 600, 0.2},
			{"/fraction-1-of-3", 600, 1.0 / 3},
			{"/fraction-50-of-100", 600, 0.5},
		} {
			t.Run(tc.path, func(t *testing.T) {
				_, token := client.many(t, fromV1(http.Request{Path: tc.path}), tc.count)
				n := float64(tc.count)
				margin := deviations * math.Sqrt(n*tc.share*(1-tc.share))
				least, most := n*tc.share-margin, n*tc.share+margin
				echoV2.await(t, s, token, int(math.Ceil(least)))
				copies := float64(len(echoV2.settled(t, s, token, client.fence(t))))
				t.Logf("%v copies of %v requests; expected: %.0f to %.0f", copies, n, least, most)
				if copies < least || copies > most {
					t.Errorf("%v copies are not within %.1f to %.1f", copies, least, most)
				}
			})
		}
	},
}
