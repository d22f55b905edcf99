package mesh

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// hopByHop are fields that concern one connection, and that a copy on another need not have.
var hopByHop = []string{"connection", "keep-alive", "te"}

// fencePath is that of a rule in each manifest that mirrors everything to each of its shadows.
const fencePath = "/fence"

// meshClient makes requests from a pod of echo-v1.
type meshClient struct {
	pod   echo.MeshPod
	suite *suite.ConformanceTestSuite
}

func connect(t *testing.T, s *suite.ConformanceTestSuite) meshClient {
	t.Helper()
	return meshClient{pod: echo.ConnectToApp(t, s, echo.MeshAppEchoV1), suite: s}
}

// tagged is the request with a new token, and that token.
func tagged(expected http.ExpectedResponse) (http.ExpectedResponse, string) {
	token := uuid.NewString()
	headers := map[string]string{tokenHeader: token}
	maps.Copy(headers, expected.Request.Headers)
	expected.Request.Headers = headers
	return expected, token
}

// converge makes the request until the routes of the test are in force.
func (c meshClient) converge(t *testing.T, expected http.ExpectedResponse) {
	t.Helper()
	c.pod.MakeRequestAndExpectEventuallyConsistentResponse(t, expected, c.suite.TimeoutConfig)
}

// one makes the request once; the response must be the expected one.
func (c meshClient) one(t *testing.T, expected http.ExpectedResponse) (echo.Response, string) {
	t.Helper()
	expected, token := tagged(expected)
	_, response, err := c.pod.CaptureRequestResponseAndCompare(t, expected)
	if err != nil {
		t.Fatalf("%s: %v", expected.Request.Path, err)
	}
	return response, token
}

// many makes the request `count` times with one token; each response must have status 200.
func (c meshClient) many(t *testing.T, expected http.ExpectedResponse, count int) ([]echo.Response, string) {
	t.Helper()
	// What the suite's client does within its timeout on a slow machine.
	const batch = 100
	expected, token := tagged(expected)
	var responses []echo.Response
	for len(responses) < count {
		more, err := c.pod.RequestBatch(t, expected, min(batch, count-len(responses)))
		if err != nil {
			t.Fatalf("%s: %v", expected.Request.Path, err)
		}
		responses = append(responses, more...)
	}
	for _, response := range responses {
		if response.Code != "200" {
			t.Fatalf("%s: status %s", expected.Request.Path, response.Code)
		}
	}
	return responses, token
}

// fence makes a request that is mirrored to each shadow, and returns its token.
func (c meshClient) fence(t *testing.T) func() string {
	return func() string {
		t.Helper()
		_, token := c.one(t, fromV1(http.Request{Path: fencePath}))
		return token
	}
}

// fromV1 is a request to Service echo that echo-v1 responds to.
func fromV1(request http.Request) http.ExpectedResponse {
	if request.Host == "" {
		request.Host = "echo"
	}
	return http.ExpectedResponse{Request: request, Backend: "echo-v1", Namespace: suite.MeshNamespace}
}

// exec runs a command in the client's pod; its standard output.
func (c meshClient) exec(t *testing.T, command ...string) string {
	t.Helper()
	request := c.suite.Clientset.CoreV1().RESTClient().Post().
		Resource("pods").Name(c.pod.Name).Namespace(c.pod.Namespace).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: "echo", Command: command, Stdout: true, Stderr: true,
		}, scheme.ParameterCodec)
	executor, err := remotecommand.NewSPDYExecutor(c.suite.RestConfig, "POST", request.URL())
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	options := remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr}
	if err := executor.StreamWithContext(context.Background(), options); err != nil {
		t.Fatalf("%v: %v: %s", command, err, stderr.String())
	}
	return stdout.String()
}

// compare says how a copy differs from the request as the primary got it.
func compare(primary echo.Response, copied record) error {
	if copied.method != primary.Method || copied.url != primary.URL {
		return fmt.Errorf("the copy is %s %s, the request %s %s", copied.method, copied.url, primary.Method, primary.URL)
	}
	return compareHeaders(primary, copied)
}

// compareHeaders is compare of what gRPC has as well.
func compareHeaders(primary echo.Response, copied record) error {
	if want := shadowHost(primary.Host); copied.host != want {
		return fmt.Errorf("the copy's host is %s, not %s", copied.host, want)
	}
	want := make(map[string]string)
	for name, values := range primary.RequestHeaders {
		want[strings.ToLower(name)] = strings.Join(values, " ")
	}
	got := maps.Clone(copied.headers)
	for _, name := range append([]string{":authority", ""}, hopByHop...) {
		delete(want, name)
		delete(got, name)
	}
	if !maps.Equal(want, got) {
		return fmt.Errorf("the copy has the headers %v, the request %v", got, want)
	}
	return nil
}

// shadowHost is the host of a copy: with the suffix, before the port if there is one.
func shadowHost(host string) string {
	name, port, found := strings.Cut(host, ":")
	if found {
		port = ":" + port
	}
	return name + hostSuffix + port
}

// expectHeaders fails unless the copy has these values; an empty one means that the field is absent.
func expectHeaders(t *testing.T, copied record, headers map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if got := copied.headers[strings.ToLower(name)]; got != headers[name] {
			t.Errorf("the copy has %s %q, not %q", name, got, headers[name])
		}
	}
}
