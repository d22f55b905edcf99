// Package conformance runs the Gateway API's own conformance suite, unmodified, on the test cluster, and then
// the tests of the folder mesh, which have its form.
//
// In: the suite's flags, and the cluster of KUBECONFIG. Out: its report (-report-output), which the tests of
// mesh have no part in, and the result of each test of a mesh by name (-results), because the report counts
// only those of its profiles.
package conformance

import (
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"slices"
	"testing"

	"mirror.dev/conformance/mesh"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

var results = flag.String("results", "", "The file to which to append the result of each test, one JSON object a line")

// ours are the tests of mesh.
var ours = slices.Concat(mesh.HTTPTests, mesh.GRPCTests)

// result is that of one test.
type result struct {
	Name string `json:"name"`
	// Whether it is one of mesh.
	Ours bool `json:"ours"`
	// passed, failed or skipped.
	Result string `json:"result"`
	// Features that the test needs and the flags do not declare.
	Undeclared []features.FeatureName `json:"undeclared"`
}

func TestConformance(t *testing.T) {
	conformance.RunConformanceWithOptions(t, options(t, false))
}

func TestMesh(t *testing.T) {
	options := options(t, true)
	options.ReportOutputPath = ""
	options.ManifestFS = []fs.FS{&conformance.Manifests, &mesh.Manifests}
	for _, test := range ours {
		options.SupportedFeatures = append(options.SupportedFeatures, test.Features...)
	}
	s, err := suite.NewConformanceTestSuite(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Setup(t, ours)
	if err := s.Run(t, ours); err != nil {
		t.Fatal(err)
	}
}

// options are those of the flags, with each test's result written.
func options(t *testing.T, ours bool) suite.ConformanceOptions {
	options := conformance.DefaultOptions(t)
	through, err := throughProxy(t, options.RestConfig)
	if err != nil {
		t.Fatal(err)
	}
	options.RestConfig = through
	file, err := os.OpenFile(*results, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	options.Hook = func(t *testing.T, test suite.ConformanceTest, s *suite.ConformanceTestSuite) {
		if !slices.Contains(test.Features, features.SupportMesh) {
			return
		}
		result := of(t, test, s)
		result.Ours = ours
		if err := json.NewEncoder(file).Encode(result); err != nil {
			t.Errorf("%s: %v", test.ShortName, err)
		}
	}
	return options
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
