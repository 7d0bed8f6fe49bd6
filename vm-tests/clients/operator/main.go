// Command operator is an operator as its authors write one, with a custom resource, webhooks and conversion of its
// own, together with what has to hold of the server that it runs against. It prints a line per check that held.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

const (
	space    = "gadgets"
	patience = 60 * time.Second
)

var scheme = runtime.NewScheme()

func main() {
	// The libraries have a flag of that name, too, for all who do not ask.
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "an administrator's kubeconfig")
	address := flags.String("address", "127.0.0.1", "where the API server reaches this machine")
	_ = flags.Parse(os.Args[1:])
	ctrl.SetLogger(zap.New(zap.WriteTo(os.Stderr)))
	if err := run(ctrl.SetupSignalHandler(), *kubeconfig, *address); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	fmt.Println("all checks held")
}

func run(ctx context.Context, kubeconfig, address string) error {
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	addTypes(scheme)
	admin, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	said := &warnings{}
	admin.WarningHandler = said
	api, err := client.NewWithWatch(admin, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	hooks, stop, err := prepare(ctx, api, address)
	if err != nil {
		return err
	}
	defer stop()
	own, err := asServiceAccount(ctx, api, admin)
	if err != nil {
		return err
	}
	scene := &scene{Client: api, watching: api, admin: admin, said: said}
	scene.first, err = start(ctx, own, hooks)
	if err != nil {
		return err
	}
	if scene.second, err = start(ctx, own, nil); err != nil {
		return err
	}
	for _, check := range checks {
		if err := check.run(ctx, scene); err != nil {
			return fmt.Errorf("%s: %w", check.about, err)
		}
		fmt.Println(check.about)
	}
	return nil
}

// prepare installs all that the operator needs, and says how to serve its webhooks.
func prepare(ctx context.Context, api client.Client, address string) (*webhook.Options, func(), error) {
	folder, err := os.MkdirTemp("", name)
	if err != nil {
		return nil, nil, err
	}
	stop := func() { _ = os.RemoveAll(folder) }
	authority, err := writeCertificate(folder, address)
	if err != nil {
		return nil, stop, err
	}
	port, err := freePort(address)
	if err != nil {
		return nil, stop, err
	}
	url := "https://" + net.JoinHostPort(address, strconv.Itoa(port))
	if err := install(ctx, api, url, authority); err != nil {
		return nil, stop, err
	}
	err = eventually(ctx, "the custom resource is served", func() error {
		return api.List(ctx, &GadgetList{}, client.InNamespace(space))
	})
	return &webhook.Options{Host: address, Port: port, CertDir: folder}, stop, err
}

func freePort(address string) (int, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// asServiceAccount is what a pod of the operator would have: its account's token, and no more rights than its role.
func asServiceAccount(ctx context.Context, api client.Client, admin *rest.Config) (*rest.Config, error) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: space}}
	request := &authenticationv1.TokenRequest{}
	if err := api.SubResource("token").Create(ctx, account, request); err != nil {
		return nil, fmt.Errorf("ask for the operator's token: %w", err)
	}
	own := rest.AnonymousClientConfig(admin)
	own.BearerToken = request.Status.Token
	return own, nil
}

// An instance of the operator, and how it is ended.
type instance struct {
	manager ctrl.Manager
	stop    context.CancelFunc
	ended   chan error
}

func start(ctx context.Context, own *rest.Config, hooks *webhook.Options) (*instance, error) {
	manager, err := newManager(own, hooks)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	started := &instance{manager: manager, stop: stop, ended: make(chan error, 1)}
	go func() { started.ended <- manager.Start(ctx) }()
	if hooks == nil {
		return started, nil
	}
	return started, eventually(ctx, "the webhooks are served", func() error {
		return manager.GetWebhookServer().StartedChecker()(nil)
	})
}

func (i *instance) end() error {
	i.stop()
	select {
	case err := <-i.ended:
		return err
	case <-time.After(patience):
		return fmt.Errorf("an instance of the operator does not end")
	}
}

// eventually asks again until something holds, or patience ends.
func eventually(ctx context.Context, what string, holds func() error) error {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	for {
		err := holds()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, patience, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
