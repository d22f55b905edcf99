// Package mesh has tests of RequestMirror for a mesh, in the form of the Gateway API's own, which has none
// (kubernetes-sigs/gateway-api #3514, #3515).
//
// Each needs the suite's manifests of a mesh and its own. Shadows are the suite's pods: what they got is read
// from their logs, and compared with what the primary says that it got.
package mesh

import (
	"embed"

	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

var (
	// HTTPTests are those of HTTPRoute.
	HTTPTests []suite.ConformanceTest
	// GRPCTests are those of GRPCRoute.
	GRPCTests []suite.ConformanceTest
)

// Manifests are those of the tests.
//
//go:embed *.yaml
var Manifests embed.FS
