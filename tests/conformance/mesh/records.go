package mesh

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tlog"
)

// hostSuffix is what a shadow finds behind the host of a request. The API leaves the host of a copy to
// implementations; this is what Envoy has made usual.
const hostSuffix = "-shadow"

// tokenHeader identifies the requests of a test.
const tokenHeader = "X-Mirror-Token"

// pollInterval is how often a log is read.
const pollInterval = 150 * time.Millisecond

// The lines that the program of echo-advanced logs.
var (
	httpLine     = regexp.MustCompile(`HTTP/[0-9.]+ Request\t.*?method=(\S+) url=(\S*) host=(\S*) headers=map\[(.*)\] id=(\S+)$`)
	grpcLine     = regexp.MustCompile(`GRPC Request\tmessage=(\S*) headers=map\[(.*)\] id=(\S+)$`)
	responseLine = regexp.MustCompile(`HTTP/[0-9.]+ Response\tcode=\d+ headers=map\[(.*)\] id=(\S+)$`)
	headerField  = regexp.MustCompile(`(:?[A-Za-z0-9-]+):\[([^\]]*)\]`)
)

// shadow is a backend whose pods say what they got.
type shadow struct {
	namespace string
	labels    map[string]string
}

var (
	echoV2 = shadow{
		namespace: suite.MeshNamespace,
		labels:    map[string]string{"app": "echo", "version": "v2"},
	}
	// consumerV1 is in a namespace where mirrors need a ReferenceGrant.
	consumerV1 = shadow{
		namespace: suite.MeshConsumerNamespace,
		labels:    map[string]string{"app": "echo", "version": "v1"},
	}
)

// record is a request that a shadow has logged.
type record struct {
	method, url, host string
	// headers have lower-case names; equal ones are joined by spaces, as the log does.
	headers map[string]string
	// message is that of a gRPC request.
	message string
	// responseHeaders are those of the response, which a body of a form can choose.
	responseHeaders map[string]string
}

func parseHeaders(text string) map[string]string {
	headers := make(map[string]string)
	for _, field := range headerField.FindAllStringSubmatch(text, -1) {
		headers[strings.ToLower(field[1])] = field[2]
	}
	return headers
}

// parseRecords are the requests in a log that have this token, in the order in which they arrived.
func parseRecords(log, token string) []record {
	var found []record
	at := make(map[string]int)
	for line := range strings.SplitSeq(log, "\n") {
		var (
			r  record
			id string
		)
		if match := httpLine.FindStringSubmatch(line); match != nil {
			r = record{method: match[1], url: match[2], host: match[3], headers: parseHeaders(match[4])}
			id = match[5]
		} else if match := grpcLine.FindStringSubmatch(line); match != nil {
			r = record{message: match[1], headers: parseHeaders(match[2])}
			r.host = r.headers[":authority"]
			id = match[3]
		} else if match := responseLine.FindStringSubmatch(line); match != nil {
			if index, ok := at[match[2]]; ok {
				found[index].responseHeaders = parseHeaders(match[1])
			}
			continue
		} else {
			continue
		}
		if r.headers[strings.ToLower(tokenHeader)] == token {
			at[id] = len(found)
			found = append(found, r)
		}
	}
	return found
}

// records are the requests with this token that the shadow's pods have logged so far.
func (s shadow) records(t *testing.T, c *suite.ConformanceTestSuite, token string) ([]record, error) {
	t.Helper()
	pods := new(corev1.PodList)
	if err := c.Client.List(t.Context(), pods, client.InNamespace(s.namespace), client.MatchingLabels(s.labels)); err != nil {
		return nil, err
	}
	if len(pods.Items) == 0 {
		return nil, fmt.Errorf("no pod of %v", s)
	}
	var found []record
	for i := range pods.Items {
		request := c.Clientset.CoreV1().Pods(s.namespace).GetLogs(pods.Items[i].Name, &corev1.PodLogOptions{Container: "echo"})
		stream, err := request.Stream(t.Context())
		if err != nil {
			return nil, err
		}
		log, err := io.ReadAll(stream)
		stream.Close()
		if err != nil {
			return nil, err
		}
		found = append(found, parseRecords(string(log), token)...)
	}
	return found, nil
}

// await reads the log until it has `count` requests with this token.
func (s shadow) await(t *testing.T, c *suite.ConformanceTestSuite, token string, count int) []record {
	t.Helper()
	deadline := time.Now().Add(c.TimeoutConfig.MaxTimeToConsistency)
	for {
		found, err := s.records(t, c, token)
		switch {
		case err != nil:
			tlog.Logf(t, "the log of %v: %v", s, err)
		case len(found) >= count:
			return found
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v has %d copies of %d: %v", s, len(found), count, err)
		}
		time.Sleep(pollInterval)
	}
}

// settled are the requests with this token once no more of them arrive: twice in a row, a later copy has
// arrived and brought none. `fence` makes a request whose copy this shadow gets, and returns its token.
func (s shadow) settled(t *testing.T, c *suite.ConformanceTestSuite, token string, fence func() string) []record {
	t.Helper()
	const most = 20
	last := -1
	for range most {
		s.await(t, c, fence(), 1)
		found := s.await(t, c, token, 0)
		if len(found) == last {
			return found
		}
		last = len(found)
	}
	t.Fatalf("%v gets ever more copies: %d", s, last)
	return nil
}

// exactly fails unless the shadow gets `count` requests with this token, and no more.
func (s shadow) exactly(t *testing.T, c *suite.ConformanceTestSuite, token string, count int, fence func() string) []record {
	t.Helper()
	s.await(t, c, token, count)
	found := s.settled(t, c, token, fence)
	if len(found) != count {
		t.Fatalf("%v has %d copies, not %d", s, len(found), count)
	}
	return found
}
