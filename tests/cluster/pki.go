package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime of all certificates: longer than any test, short enough that a forgotten key is worth
// nothing.
const lifetime = 7 * 24 * time.Hour

// makePKI writes, into one folder, a CA, a certificate and a key for each party, the key that
// service account tokens are signed with, and a kubeconfig for each client.
func makePKI(args []string) error {
	flags := flag.NewFlagSet("pki", flag.ExitOnError)
	dir := flags.String("dir", "", "folder to write to")
	server := flags.String("server", "", "URL of the API server, for the kubeconfigs")
	address := flags.String("address", "", "the node's IP address, where the API server listens too")
	service := flags.String("service", "10.96.0.1", "the API server's ClusterIP")
	node := flags.String("node", "node", "name of the node")
	if err := flags.Parse(args); err != nil {
		return err
	}
	nodeIP, serviceIP := net.ParseIP(*address), net.ParseIP(*service)
	if *dir == "" || *server == "" || nodeIP == nil || serviceIP == nil {
		return errors.New("--dir, --server, --address and --service are needed, IP addresses as numbers")
	}
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority(*dir)
	if err != nil {
		return err
	}
	loopback := net.ParseIP("127.0.0.1")
	for _, party := range parties(*node, nodeIP, []net.IP{loopback, nodeIP, serviceIP}) {
		if err := ca.issue(party); err != nil {
			return fmt.Errorf("%s: %w", party.file, err)
		}
		if party.kubeconfig {
			if err := ca.kubeconfig(party.file, *server); err != nil {
				return fmt.Errorf("kubeconfig of %s: %w", party.file, err)
			}
		}
	}
	return serviceAccountKey(*dir)
}

// party is one that has a certificate: a client, a server, or both.
type party struct {
	file       string
	name       string
	groups     []string
	addresses  []net.IP
	names      []string
	kubeconfig bool
}

// parties are those of a cluster with one node, with the names that the API server's bootstrap
// roles are bound to.
func parties(node string, nodeIP net.IP, server []net.IP) []party {
	return []party{
		{
			file: "apiserver", name: "kube-apiserver", addresses: server,
			names: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc.cluster.local"},
		},
		{file: "apiserver-kubelet-client", name: "kube-apiserver-kubelet-client",
			groups: []string{"system:masters"}},
		{file: "admin", name: "kubernetes-admin", groups: []string{"system:masters"}, kubeconfig: true},
		{file: "controller-manager", name: "system:kube-controller-manager", kubeconfig: true},
		{file: "scheduler", name: "system:kube-scheduler", kubeconfig: true},
		{file: "proxy", name: "system:kube-proxy", kubeconfig: true},
		{file: "node", name: "system:node:" + node, groups: []string{"system:nodes"},
			addresses: []net.IP{nodeIP}, names: []string{node}, kubeconfig: true},
	}
}

type authority struct {
	dir         string
	certificate *x509.Certificate
	key         crypto.Signer
	serial      int64
}

func newAuthority(dir string) (*authority, error) {
	key, err := newKey(filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, err
	}
	template := template(1, "kubernetes", nil)
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	ca := &authority{dir: dir, certificate: certificate, key: key, serial: 1}
	return ca, writePEM(filepath.Join(dir, "ca.crt"), "CERTIFICATE", der)
}

func (ca *authority) issue(party party) error {
	key, err := newKey(filepath.Join(ca.dir, party.file+".key"))
	if err != nil {
		return err
	}
	ca.serial++
	template := template(ca.serial, party.name, party.groups)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(party.addresses) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	template.IPAddresses, template.DNSNames = party.addresses, party.names
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, key.Public(), ca.key)
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(ca.dir, party.file+".crt"), "CERTIFICATE", der)
}

func template(serial int64, name string, groups []string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name, Organization: groups},
		// Clocks are one here, but they may be set back.
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(lifetime),
	}
}

// serviceAccountKey writes the pair that signs and checks the tokens of service accounts.
func serviceAccountKey(dir string) error {
	key, err := newKey(filepath.Join(dir, "sa.key"))
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, "sa.pub"), "PUBLIC KEY", der)
}

func newKey(path string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(path, "PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
