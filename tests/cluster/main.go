// Command cluster is the control plane of a Kubernetes cluster on one machine, and kubectl, in one
// binary: each is a subcommand, run as a separate process, or called by its name
// through a link.
//
// In: flags (a component's are its own ones). Out: the component, until it is killed. The
// components are those of the release, unchanged; they start no container and need no Docker.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// components make their commands, which read os.Args.
var components = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": func() *cobra.Command { return controllers.NewControllerManagerCommand() },
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
}

// Our own commands around them.
var commands = map[string]func(args []string) error{
	"etcd":    runEtcd,
	"compact": compactEtcd,
	"pki":     makePKI,
}

func main() {
	name := filepath.Base(os.Args[0])
	if !known(name) && len(os.Args) > 1 {
		// Whoever reads os.Args sees its own name first.
		os.Args = os.Args[1:]
		name = os.Args[0]
	}
	switch {
	case name == "kubectl":
		logs.GlogSetter(kubectl.GetLogVerbosity(os.Args))
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			util.CheckErr(err)
		}
	case components[name] != nil:
		os.Exit(cli.Run(components[name]()))
	case commands[name] != nil:
		if err := commands[name](os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
	default:
		fmt.Fprintf(os.Stderr, "no component is called %q: etcd, compact, pki, kube-apiserver, "+
			"kube-controller-manager, kube-scheduler, kube-proxy, kubectl\n", name)
		os.Exit(2)
	}
}

func known(name string) bool {
	return name == "kubectl" || components[name] != nil || commands[name] != nil
}
