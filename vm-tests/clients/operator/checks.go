package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// scene is what checks have at hand: an administrator's client that keeps nothing, and both instances.
type scene struct {
	client.Client
	watching      client.WithWatch
	admin         *rest.Config
	said          *warnings
	first, second *instance
}

var checks = []struct {
	about string
	run   func(context.Context, *scene) error
}{
	{"the mutating webhook gives a default, the operator makes its objects and tells the status", checkMade},
	{"the validating webhook refuses, and warns", checkValidated},
	{"the schema and its rules refuse, in strict requests also unknown fields", checkSchema},
	{"both versions are read, written and watched", checkVersions},
	{"the scale subresource", checkScale},
	{"status and spec are written apart, and stale writes conflict", checkWrites},
	{"server-side apply tells whose fields they are", checkApply},
	{"what others change is put back", checkDrift},
	{"lists by label and field, and in pages", checkLists},
	{"a dry run changes nothing", checkDryRun},
	{"events are told", checkEvents},
	{"the lease goes to the second instance, which goes on", checkLeader},
	{"a finalizer holds an object; what it owned goes with it", checkRemoval},
	{"without its webhooks nothing is written", checkUnreachable},
	{"the custom resource goes with all of its objects", checkUninstall},
}

func gadget(name, colour string) *Gadget {
	return &Gadget{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: space, Labels: map[string]string{"made": "here"}},
		Spec:       GadgetSpec{Replicas: 2, Colour: colour},
	}
}

func key(name string) client.ObjectKey { return client.ObjectKey{Namespace: space, Name: name} }

// must tells what was expected of the server when it did otherwise.
func must(holds bool, format string, arguments ...any) error {
	if holds {
		return nil
	}
	return fmt.Errorf(format, arguments...)
}

func refused(err error, is func(error) bool, words ...string) error {
	if err == nil {
		return fmt.Errorf("nothing was refused")
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			return fmt.Errorf("no word of %q in: %w", word, err)
		}
	}
	return must(is(err), "refused otherwise: %v", err)
}

func checkMade(ctx context.Context, s *scene) error {
	made := gadget("one", "")
	if err := s.Create(ctx, made); err != nil {
		return err
	}
	if err := must(made.Spec.Colour == "blue" && made.Generation == 1, "it is made as %+v", made); err != nil {
		return err
	}
	return eventually(ctx, "the gadget's objects and status", func() error {
		deployment := &appsv1.Deployment{}
		if err := s.Get(ctx, key("one"), deployment); err != nil {
			return err
		}
		if err := must(metav1.IsControlledBy(deployment, made), "it is owned by %v", deployment.OwnerReferences); err != nil {
			return err
		}
		if err := s.Get(ctx, key("one"), made); err != nil {
			return err
		}
		isMade := apimeta.IsStatusConditionTrue(made.Status.Conditions, "Made")
		return must(isMade && made.Status.Selector == "gadget=one" && made.Generation == 1, "it is %+v", made)
	})
}

func checkValidated(ctx context.Context, s *scene) error {
	err := s.Create(ctx, gadget("bad", "none"))
	const words = `admission webhook "validate.clients.keelson.test" denied the request: a gadget has a colour`
	if err := refused(err, apierrors.IsForbidden, words); err != nil {
		return err
	}
	pale := gadget("pale", "palegreen")
	if err := s.Create(ctx, pale); err != nil {
		return err
	}
	if err := must(s.said.has("pale colours are hard to see"), "no warning came, but %v", s.said.all()); err != nil {
		return err
	}
	pale.Annotations = map[string]string{"keep": "yes"}
	if err := s.Update(ctx, pale); err != nil && !apierrors.IsConflict(err) {
		return err
	}
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"keep":"yes"}}}`))
	if err := s.Patch(ctx, pale, patch); err != nil {
		return err
	}
	if err := refused(s.Delete(ctx, pale), apierrors.IsForbidden, "it is to be kept"); err != nil {
		return err
	}
	patch = client.RawPatch("application/json-patch+json", []byte(`[{"op":"remove","path":"/metadata/annotations/keep"}]`))
	return s.Patch(ctx, pale, patch)
}

func checkSchema(ctx context.Context, s *scene) error {
	many := gadget("many", "")
	many.Spec.Replicas = 6
	if err := refused(s.Create(ctx, many), apierrors.IsInvalid, "more than five are too many"); err != nil {
		return err
	}
	many.Spec.Replicas = -1
	err := refused(s.Create(ctx, many), apierrors.IsInvalid, "spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0")
	if err != nil {
		return err
	}
	unknown := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": stored.String(), "kind": "Gadget",
		"metadata": map[string]any{"name": "strict", "namespace": space},
		"spec":     map[string]any{"weight": int64(3)},
	}}
	strict := client.WithFieldValidation(s.Client, metav1.FieldValidationStrict)
	return refused(strict.Create(ctx, unknown), apierrors.IsBadRequest, `strict decoding error: unknown field "spec.weight"`)
}

func checkVersions(ctx context.Context, s *scene) error {
	watched, err := s.watching.Watch(ctx, &OldGadgetList{}, client.InNamespace(space), client.MatchingLabels{"age": "old"})
	if err != nil {
		return err
	}
	defer watched.Stop()
	old := &OldGadget{ObjectMeta: metav1.ObjectMeta{Name: "old", Namespace: space, Labels: map[string]string{"age": "old"}}}
	old.Spec.Count = 3
	if err := s.Create(ctx, old); err != nil {
		return err
	}
	if err := must(old.Spec.Count == 3 && old.Spec.Colour == "blue", "it is made as %+v", old); err != nil {
		return err
	}
	if err := must(s.said.has("clients.keelson.test/v1alpha1 Gadget is deprecated"), "no warning: %v", s.said.all()); err != nil {
		return err
	}
	event := <-watched.ResultChan()
	seen, is := event.Object.(*OldGadget)
	if !is || event.Type != watch.Added || seen.Spec.Count != 3 {
		return fmt.Errorf("the watch tells %v %+v", event.Type, event.Object)
	}
	newer := &Gadget{}
	if err := s.Get(ctx, key("old"), newer); err != nil {
		return err
	}
	list := &OldGadgetList{}
	if err := s.List(ctx, list, client.InNamespace(space)); err != nil {
		return err
	}
	is = newer.Spec.Replicas == 3 && len(list.Items) == 3
	return must(is, "it is %+v in the newer version, of %d in the older", newer.Spec, len(list.Items))
}

func checkScale(ctx context.Context, s *scene) error {
	scale, one := &autoscalingv1.Scale{}, gadget("one", "")
	if err := s.SubResource("scale").Get(ctx, one, scale); err != nil {
		return err
	}
	if err := must(scale.Spec.Replicas == 2 && scale.Status.Selector == "gadget=one", "it is %+v", scale); err != nil {
		return err
	}
	scale.Spec.Replicas = 3
	if err := s.SubResource("scale").Update(ctx, one, client.WithSubResourceBody(scale)); err != nil {
		return err
	}
	return eventually(ctx, "the deployment is scaled", func() error {
		deployment := &appsv1.Deployment{}
		if err := s.Get(ctx, key("one"), deployment); err != nil {
			return err
		}
		return must(*deployment.Spec.Replicas == 3, "it wants %d replicas", *deployment.Spec.Replicas)
	})
}

func checkWrites(ctx context.Context, s *scene) error {
	one := &Gadget{}
	if err := s.Get(ctx, key("one"), one); err != nil {
		return err
	}
	stale := one.DeepCopyObject().(*Gadget)
	one.Labels["touched"], one.Status.Selector = "yes", "nonsense"
	if err := s.Update(ctx, one); err != nil {
		return err
	}
	isApart := one.Status.Selector == "gadget=one" && one.Generation == stale.Generation
	if err := must(isApart, "a write of the whole gives %+v", one); err != nil {
		return err
	}
	one.Spec.Colour = "status"
	if err := s.Status().Update(ctx, one); err != nil {
		return err
	}
	if err := must(one.Spec.Colour == "blue", "a write of the status gives the colour %s", one.Spec.Colour); err != nil {
		return err
	}
	stale.Labels["touched"] = "no"
	return refused(s.Update(ctx, stale), apierrors.IsConflict, "the object has been modified")
}

func applied(fields map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": stored.String(), "kind": "Gadget",
		"metadata": map[string]any{"name": "applied", "namespace": space}, "spec": fields,
	}}
}

func (s *scene) apply(ctx context.Context, owner string, fields map[string]any, options ...client.ApplyOption) error {
	configuration := client.ApplyConfigurationFromUnstructured(applied(fields))
	return s.Apply(ctx, configuration, append(options, client.FieldOwner(owner))...)
}

func checkApply(ctx context.Context, s *scene) error {
	both := map[string]any{"replicas": int64(1), "colour": "red"}
	if err := s.apply(ctx, "painter", both); err != nil {
		return err
	}
	more := map[string]any{"replicas": int64(2)}
	err := refused(s.apply(ctx, "scaler", more), apierrors.IsConflict, `conflict with "painter"`, ".spec.replicas")
	if err != nil {
		return err
	}
	if err := s.apply(ctx, "scaler", more, client.ForceOwnership); err != nil {
		return err
	}
	if err := s.apply(ctx, "painter", map[string]any{"colour": "red"}); err != nil {
		return err
	}
	found := &Gadget{}
	if err := s.Get(ctx, key("applied"), found); err != nil {
		return err
	}
	owners := []string{}
	for _, entry := range found.ManagedFields {
		owners = append(owners, entry.Manager)
	}
	isKept := found.Spec.Replicas == 2 && slices.Contains(owners, "painter") && slices.Contains(owners, "scaler")
	return must(isKept, "it is %+v, of %v", found.Spec, owners)
}

func checkDrift(ctx context.Context, s *scene) error {
	settings := &corev1.ConfigMap{}
	if err := s.Get(ctx, key("one"), settings); err != nil {
		return err
	}
	settings.Data["colour"] = "drifted"
	if err := s.Update(ctx, settings); err != nil {
		return err
	}
	return eventually(ctx, "the settings are put back", func() error {
		if err := s.Get(ctx, key("one"), settings); err != nil {
			return err
		}
		return must(settings.Data["colour"] == "blue", "the colour is %s", settings.Data["colour"])
	})
}

func checkLists(ctx context.Context, s *scene) error {
	count := func(options ...client.ListOption) (int, error) {
		list := &GadgetList{}
		err := s.List(ctx, list, append(options, client.InNamespace(space))...)
		return len(list.Items), err
	}
	wanted := []struct {
		count  int
		option client.ListOption
	}{
		{2, client.MatchingLabels{"made": "here"}},
		{1, client.MatchingFields{"spec.colour": "red"}},
		{1, client.MatchingFields{"metadata.name": "old"}},
		{4, client.UnsafeDisableDeepCopy},
	}
	for _, want := range wanted {
		if found, err := count(want.option); err != nil || found != want.count {
			return fmt.Errorf("%d instead of %d by %v: %v", found, want.count, want.option, err)
		}
	}
	pages, list := 0, &GadgetList{}
	for pages == 0 || list.Continue != "" {
		if err := s.List(ctx, list, client.InNamespace(space), client.Limit(3), client.Continue(list.Continue)); err != nil {
			return err
		}
		pages++
	}
	return must(pages == 2 && len(list.Items) == 1, "%d pages, the last of %d", pages, len(list.Items))
}

func checkDryRun(ctx context.Context, s *scene) error {
	tried := gadget("tried", "")
	if err := client.NewDryRunClient(s.Client).Create(ctx, tried); err != nil {
		return err
	}
	if err := must(tried.Spec.Colour == "blue" && tried.UID != "", "it would be %+v", tried); err != nil {
		return err
	}
	return refused(s.Get(ctx, key("tried"), tried), apierrors.IsNotFound, `gadgets.clients.keelson.test "tried" not found`)
}

func checkEvents(ctx context.Context, s *scene) error {
	return eventually(ctx, "an event of the gadget", func() error {
		list := &eventsv1.EventList{}
		if err := s.List(ctx, list, client.InNamespace(space), client.MatchingFields{"regarding.name": "one"}); err != nil {
			return err
		}
		of := func(event eventsv1.Event) bool { return event.ReportingController == name && event.Reason == "Applied" }
		return must(slices.ContainsFunc(list.Items, of), "there are %d others", len(list.Items))
	})
}

func checkLeader(ctx context.Context, s *scene) error {
	held := &coordinationv1.Lease{}
	if err := s.Get(ctx, key(lease), held); err != nil {
		return err
	}
	before := *held.Spec.HolderIdentity
	select {
	case <-s.second.manager.Elected():
		return fmt.Errorf("both instances lead")
	default:
	}
	// The webhooks go with the first instance: what is looked at here must do without them.
	if err := s.setPolicy(ctx, "Ignore"); err != nil {
		return err
	}
	if err := s.first.end(); err != nil {
		return err
	}
	err := eventually(ctx, "the second instance leads", func() error {
		if err := s.Get(ctx, key(lease), held); err != nil {
			return err
		}
		holder := *held.Spec.HolderIdentity
		return must(holder != before && holder != "" && *held.Spec.LeaseTransitions > 0, "%q leads", holder)
	})
	if err != nil {
		return err
	}
	if err := s.Create(ctx, gadget("later", "green")); err != nil {
		return err
	}
	return eventually(ctx, "the second instance works", func() error {
		return s.Get(ctx, key("later"), &appsv1.Deployment{})
	})
}

func checkRemoval(ctx context.Context, s *scene) error {
	later := gadget("later", "")
	if err := s.Delete(ctx, later, client.PropagationPolicy(metav1.DeletePropagationForeground)); err != nil {
		return err
	}
	err := eventually(ctx, "the gadget is gone with its objects", func() error {
		for _, object := range []client.Object{&Gadget{}, &appsv1.Deployment{}, &corev1.ConfigMap{}} {
			if err := s.Get(ctx, key("later"), object); !apierrors.IsNotFound(err) {
				return fmt.Errorf("%T is still there: %v", object, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	note := &corev1.ConfigMap{}
	if err := s.Get(ctx, key("farewell-later"), note); err != nil {
		return err
	}
	return must(note.Data["colour"] == "green", "the note says %v", note.Data)
}

func checkUnreachable(ctx context.Context, s *scene) error {
	if err := s.setPolicy(ctx, "Fail"); err != nil {
		return err
	}
	const words = `failed calling webhook "default.clients.keelson.test": failed to call webhook: Post "https://`
	return eventually(ctx, "the refusal", func() error {
		err := client.NewDryRunClient(s.Client).Create(ctx, gadget("hopeless", ""))
		return refused(err, apierrors.IsInternalError, words, "connection refused")
	})
}

func checkUninstall(ctx context.Context, s *scene) error {
	if err := s.setPolicy(ctx, "Ignore"); err != nil {
		return err
	}
	resource := &unstructured.Unstructured{}
	resource.SetAPIVersion("apiextensions.k8s.io/v1")
	resource.SetKind("CustomResourceDefinition")
	resource.SetName("gadgets." + group)
	if err := s.Delete(ctx, resource); err != nil {
		return err
	}
	err := eventually(ctx, "the custom resource is gone", func() error {
		err := s.Get(ctx, client.ObjectKeyFromObject(resource), resource)
		return must(apierrors.IsNotFound(err), "it is still there: %v", err)
	})
	if err != nil {
		return err
	}
	err = s.List(ctx, &GadgetList{}, client.InNamespace(space))
	if err := refused(err, apierrors.IsNotFound, "the server could not find the requested resource"); err != nil {
		return err
	}
	return s.second.end()
}

// setPolicy says what becomes of requests when the operator's webhooks do not answer.
func (s *scene) setPolicy(ctx context.Context, policy string) error {
	for _, kind := range []string{"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"} {
		hooks := &unstructured.Unstructured{}
		hooks.SetAPIVersion("admissionregistration.k8s.io/v1")
		hooks.SetKind(kind)
		hooks.SetName(name)
		patch := fmt.Sprintf(`[{"op":"replace","path":"/webhooks/0/failurePolicy","value":%q}]`, policy)
		if err := s.Patch(ctx, hooks, client.RawPatch("application/json-patch+json", []byte(patch))); err != nil {
			return err
		}
	}
	return nil
}

// warnings are those of the server.
type warnings struct {
	lock  sync.Mutex
	texts []string
}

// HandleWarningHeader takes one.
func (w *warnings) HandleWarningHeader(code int, _ string, text string) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.texts = append(w.texts, fmt.Sprintf("%d %s", code, text))
}

func (w *warnings) all() []string {
	w.lock.Lock()
	defer w.lock.Unlock()
	return slices.Clone(w.texts)
}

func (w *warnings) has(words string) bool {
	return slices.ContainsFunc(w.all(), func(text string) bool { return strings.Contains(text, words) })
}
