package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// runEtcd runs a cluster of one member until SIGTERM. It serves clients on the loopback address
// only, without TLS, and does not wait for the disk: its data ends with the test.
func runEtcd(args []string) error {
	flags := flag.NewFlagSet("etcd", flag.ExitOnError)
	dir := flags.String("dir", "", "folder of the data")
	port := flags.Int("port", 2379, "clients' port on 127.0.0.1; the next one is its own")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" {
		return errors.New("--dir is missing: name a folder for the data")
	}
	config := embed.NewConfig()
	config.Dir = *dir
	config.LogLevel = "warn"
	config.UnsafeNoFsync = true
	config.ListenClientUrls = loopback(*port)
	config.AdvertiseClientUrls = config.ListenClientUrls
	config.ListenPeerUrls = loopback(*port + 1)
	config.AdvertisePeerUrls = config.ListenPeerUrls
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer server.Close()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-ended:
		return nil
	case err := <-server.Err():
		return err
	}
}

func loopback(port int) []url.URL {
	return []url.URL{{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}}
}

// compactEtcd forgets all revisions but the newest, so that a watch from an older one is refused
// with 410 (Expired) once the API server does not have it in memory either.
func compactEtcd(args []string) error {
	flags := flag.NewFlagSet("compact", flag.ExitOnError)
	endpoints := flags.String("endpoints", "http://127.0.0.1:2379", "clients' addresses of etcd")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: strings.Split(*endpoints, ","), DialTimeout: 5 * time.Second, Context: ctx,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Get(ctx, "compact_rev_key")
	if err != nil {
		return fmt.Errorf("asking for the revision: %w", err)
	}
	revision := answer.Header.Revision
	if _, err := client.Compact(ctx, revision, clientv3.WithCompactPhysical()); err != nil {
		return fmt.Errorf("compacting at revision %d: %w", revision, err)
	}
	fmt.Println(revision)
	return nil
}
