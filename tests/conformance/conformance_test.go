// Package conformance runs the Gateway API's own conformance suite, unmodified, on the test cluster.
//
// In: the suite's flags, and the cluster of KUBECONFIG. Out: its report (-report-output), and the result
// of each test of a mesh by name (-results), because the report counts only those of its profiles.
package conformance

import (
	"encoding/json"
	"flag"
	"os"
	"slices"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

var results = flag.String("results", "", "The file where to write the result of each test, one JSON object a line")

// result is that of one test.
type result struct {
	Name string `json:"name"`
	// passed, failed or skipped.
	Result string `json:"result"`
	// Features that the test needs and the flags do not declare.
	Undeclared []features.FeatureName `json:"undeclared"`
}

func TestConformance(t *testing.T) {
	options := conformance.DefaultOptions(t)
	through, err := throughProxy(t, options.RestConfig)
	if err != nil {
		t.Fatal(err)
	}
	options.RestConfig = through
	file, err := os.Create(*results)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	options.Hook = func(t *testing.T, test suite.ConformanceTest, s *suite.ConformanceTestSuite) {
		if !slices.Contains(test.Features, features.SupportMesh) {
			return
		}
		if err := json.NewEncoder(file).Encode(of(t, test, s)); err != nil {
			t.Errorf("%s: %v", test.ShortName, err)
		}
	}
	conformance.RunConformanceWithOptions(t, options)
}

// of is the result of a test that has ended.
func of(t *testing.T, test suite.ConformanceTest, s *suite.ConformanceTestSuite) result {
	undeclared := []features.FeatureName{}
	for _, feature := range test.Features {
		if !s.SupportedFeatures.Has(feature) {
			undeclared = append(undeclared, feature)
		}
	}
	outcome := "passed"
	switch {
	case t.Failed():
		outcome = "failed"
	case t.Skipped():
		outcome = "skipped"
	}
	return result{Name: test.ShortName, Result: outcome, Undeclared: undeclared}
}
