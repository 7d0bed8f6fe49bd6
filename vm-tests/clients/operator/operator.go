package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applyapps "k8s.io/client-go/applyconfigurations/apps/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const (
	name      = "gadget-operator"
	finalizer = group + "/farewell"
	lease     = "gadget-operator.clients.keelson.test"
)

// newManager makes one instance of the operator. Only one that serves webhooks needs their certificate.
func newManager(own *rest.Config, hooks *webhook.Options) (ctrl.Manager, error) {
	// Both instances are in this process, and a short lease lets the second one take over soon.
	isUnchecked, second := true, time.Second
	long, deadline := 6*second, 4*second
	options := ctrl.Options{
		Scheme:                        scheme,
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		LeaderElection:                true,
		LeaderElectionID:              lease,
		LeaderElectionNamespace:       space,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &long,
		RenewDeadline:                 &deadline,
		RetryPeriod:                   &second,
		Controller:                    config.Controller{SkipNameValidation: &isUnchecked},
	}
	if hooks != nil {
		options.WebhookServer = webhook.NewServer(*hooks)
	}
	manager, err := ctrl.NewManager(own, options)
	if err != nil {
		return nil, fmt.Errorf("make the manager: %w", err)
	}
	reconciler := &reconciler{Client: manager.GetClient(), events: manager.GetEventRecorder(name)}
	err = ctrl.NewControllerManagedBy(manager).
		For(&Gadget{}).
		Owns(&appsv1.Deployment{}).
		Owns(&corev1.ConfigMap{}, builder.OnlyMetadata).
		Complete(reconciler)
	if err == nil && hooks != nil {
		err = ctrl.NewWebhookManagedBy(manager, &Gadget{}).WithDefaulter(rules{}).WithValidator(rules{}).Complete()
	}
	return manager, err
}

type reconciler struct {
	client.Client
	events events.EventRecorder
}

func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	gadget := &Gadget{}
	if err := r.Get(ctx, request.NamespacedName, gadget); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !gadget.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.sayFarewell(ctx, gadget)
	}
	before := gadget.DeepCopyObject().(*Gadget)
	if controllerutil.AddFinalizer(gadget, finalizer) {
		patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		return ctrl.Result{}, r.Patch(ctx, gadget, patch)
	}
	if err := r.applyChildren(ctx, gadget); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, r.tellStatus(ctx, gadget)
}

// sayFarewell is what has to be done before a gadget may go: here, a note that stays.
func (r *reconciler) sayFarewell(ctx context.Context, gadget *Gadget) error {
	if !controllerutil.ContainsFinalizer(gadget, finalizer) {
		return nil
	}
	note := applycore.ConfigMap("farewell-"+gadget.Name, gadget.Namespace).
		WithData(map[string]string{"colour": gadget.Spec.Colour})
	if err := r.Apply(ctx, note, client.FieldOwner(name), client.ForceOwnership); err != nil {
		return err
	}
	before := gadget.DeepCopyObject().(*Gadget)
	controllerutil.RemoveFinalizer(gadget, finalizer)
	return client.IgnoreNotFound(r.Patch(ctx, gadget, client.MergeFrom(before)))
}

func (r *reconciler) applyChildren(ctx context.Context, gadget *Gadget) error {
	owner := applymeta.OwnerReference().
		WithAPIVersion(stored.String()).WithKind("Gadget").WithName(gadget.Name).WithUID(gadget.UID).
		WithController(true).WithBlockOwnerDeletion(true)
	labels := map[string]string{"gadget": gadget.Name}
	settings := applycore.ConfigMap(gadget.Name, gadget.Namespace).WithLabels(labels).WithOwnerReferences(owner).
		WithData(map[string]string{"colour": gadget.Spec.Colour})
	if err := r.Apply(ctx, settings, client.FieldOwner(name), client.ForceOwnership); err != nil {
		return err
	}
	container := applycore.Container().WithName("gadget").WithImage("localhost/keelson-sample:1").
		WithEnv(applycore.EnvVar().WithName("COLOUR").WithValue(gadget.Spec.Colour))
	deployment := applyapps.Deployment(gadget.Name, gadget.Namespace).WithLabels(labels).WithOwnerReferences(owner).
		WithSpec(applyapps.DeploymentSpec().
			WithReplicas(gadget.Spec.Replicas).
			WithSelector(applymeta.LabelSelector().WithMatchLabels(labels)).
			WithTemplate(applycore.PodTemplateSpec().WithLabels(labels).
				WithSpec(applycore.PodSpec().WithContainers(container))))
	return r.Apply(ctx, deployment, client.FieldOwner(name), client.ForceOwnership)
}

func (r *reconciler) tellStatus(ctx context.Context, gadget *Gadget) error {
	deployment := &appsv1.Deployment{}
	if err := r.Get(ctx, client.ObjectKeyFromObject(gadget), deployment); err != nil {
		return client.IgnoreNotFound(err)
	}
	before := gadget.DeepCopyObject().(*Gadget)
	gadget.Status.Replicas = deployment.Status.Replicas
	gadget.Status.Selector = "gadget=" + gadget.Name
	changed := apimeta.SetStatusCondition(&gadget.Status.Conditions, metav1.Condition{
		Type: "Made", Status: metav1.ConditionTrue, Reason: "Applied",
		Message: "all parts are applied", ObservedGeneration: gadget.Generation,
	})
	if !changed && before.Status.Replicas == gadget.Status.Replicas {
		return nil
	}
	r.events.Eventf(gadget, deployment, corev1.EventTypeNormal, "Applied", "Apply", "%d replicas wanted", gadget.Spec.Replicas)
	return r.Status().Update(ctx, gadget)
}

// rules are what the operator's webhooks know of gadgets.
type rules struct{}

func (rules) Default(_ context.Context, gadget *Gadget) error {
	if gadget.Spec.Colour == "" {
		gadget.Spec.Colour = "blue"
	}
	return nil
}

func (rules) ValidateCreate(_ context.Context, gadget *Gadget) (admission.Warnings, error) {
	if gadget.Spec.Colour == "none" {
		return nil, fmt.Errorf("a gadget has a colour")
	}
	if strings.HasPrefix(gadget.Spec.Colour, "pale") {
		return admission.Warnings{"pale colours are hard to see"}, nil
	}
	return nil, nil
}

func (all rules) ValidateUpdate(ctx context.Context, _, gadget *Gadget) (admission.Warnings, error) {
	return all.ValidateCreate(ctx, gadget)
}

func (rules) ValidateDelete(_ context.Context, gadget *Gadget) (admission.Warnings, error) {
	if gadget.Annotations["keep"] != "" {
		return nil, fmt.Errorf("it is to be kept")
	}
	return nil, nil
}
