package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	protocol "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// patience is how long a client of exec may take to open its streams, and to close them.
const patience = 10 * time.Second

// streams are those that the suite asks for: no stdin, no terminal.
var streams = []string{corev1.StreamTypeError, corev1.StreamTypeStdout, corev1.StreamTypeStderr}

// execProxy is the API server for clients of exec by SPDY, which the suite is, in front of nodes that
// speak WebSocket alone. Everything else is passed on.
type execProxy struct {
	server *rest.Config
	others http.Handler
}

// throughProxy is a configuration that leads to the same API server through an execProxy, which
// listens on the loopback address until the test ends.
func throughProxy(t *testing.T, config *rest.Config) (*rest.Config, error) {
	target, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, err
	}
	others := &httputil.ReverseProxy{
		Rewrite:       func(request *httputil.ProxyRequest) { request.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,
	}
	server := httptest.NewServer(&execProxy{server: config, others: others})
	t.Cleanup(server.Close)
	through := rest.AnonymousClientConfig(config)
	through.Host, through.TLSClientConfig = server.URL, rest.TLSClientConfig{}
	return through, nil
}

func (proxy *execProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/exec") && httpstream.IsUpgradeRequest(r) {
		if err := proxy.exec(w, r); err != nil {
			fmt.Printf("exec %s: %v\n", r.URL, err)
		}
		return
	}
	proxy.others.ServeHTTP(w, r)
}

// exec runs the command of a request, and returns once the client has all of its output.
func (proxy *execProxy) exec(w http.ResponseWriter, r *http.Request) error {
	if _, err := httpstream.Handshake(r, w, []string{protocol.StreamProtocolV4Name}); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return err
	}
	opened := make(chan httpstream.Stream, len(streams))
	connection := spdy.NewResponseUpgrader().UpgradeResponse(w, r,
		func(stream httpstream.Stream, replySent <-chan struct{}) error {
			go func() {
				<-replySent
				opened <- stream
			}()
			return nil
		})
	if connection == nil {
		return errors.New("the connection was not upgraded")
	}
	defer connection.Close()
	to := make(map[string]httpstream.Stream)
	late := time.After(patience)
	for len(to) < len(streams) {
		select {
		case stream := <-opened:
			to[stream.Headers().Get(corev1.StreamType)] = stream
		case <-late:
			return fmt.Errorf("the client has opened %d streams of %d", len(to), len(streams))
		}
	}
	ended := proxy.run(r, to[corev1.StreamTypeStdout], to[corev1.StreamTypeStderr])
	if err := json.NewEncoder(to[corev1.StreamTypeError]).Encode(status(ended)); err != nil {
		return err
	}
	for _, stream := range to {
		// The end of the stream: what was written before arrives.
		if err := stream.Close(); err != nil {
			return err
		}
	}
	select {
	case <-connection.CloseChan():
	case <-time.After(patience):
	}
	return nil
}

// run is kubectl's exec.
func (proxy *execProxy) run(r *http.Request, stdout, stderr io.Writer) error {
	target, err := url.Parse(proxy.server.Host)
	if err != nil {
		return err
	}
	target.Path, target.RawQuery = r.URL.Path, r.URL.RawQuery
	executor, err := remotecommand.NewWebSocketExecutor(proxy.server, http.MethodGet, target.String())
	if err != nil {
		return err
	}
	// Not the request's context, which ends with the upgrade.
	options := remotecommand.StreamOptions{Stdout: stdout, Stderr: stderr}
	return executor.StreamWithContext(context.Background(), options)
}

// status is how a command has ended, for the error stream of protocol v4.
func status(ended error) metav1.Status {
	var exit exec.CodeExitError
	switch {
	case ended == nil:
		return metav1.Status{Status: metav1.StatusSuccess}
	case errors.As(ended, &exit):
		return metav1.Status{
			Status: metav1.StatusFailure,
			Reason: protocol.NonZeroExitCodeReason,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{
				{Type: protocol.ExitCodeCauseType, Message: fmt.Sprint(exit.Code)},
			}},
			Message: exit.Error(),
		}
	default:
		return metav1.Status{Status: metav1.StatusFailure, Message: ended.Error()}
	}
}
