package main

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/conversion"
)

const group = "clients.keelson.test"

var (
	stored = schema.GroupVersion{Group: group, Version: "v1"}
	older  = schema.GroupVersion{Group: group, Version: "v1alpha1"}
)

// Gadget is the version that is stored.
type Gadget struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              GadgetSpec   `json:"spec"`
	Status            GadgetStatus `json:"status,omitempty"`
}

// GadgetSpec is what somebody wants.
type GadgetSpec struct {
	Replicas int32  `json:"replicas"`
	Colour   string `json:"colour,omitempty"`
}

// GadgetStatus is what the operator has seen.
type GadgetStatus struct {
	Replicas   int32              `json:"replicas"`
	Selector   string             `json:"selector,omitempty"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// OldGadget is an older version of it, which calls the number otherwise.
type OldGadget struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              OldSpec      `json:"spec"`
	Status            GadgetStatus `json:"status,omitempty"`
}

// OldSpec has a name of its own for what are replicas now.
type OldSpec struct {
	Count  int32  `json:"count"`
	Colour string `json:"colour,omitempty"`
}

// Hub marks the version that all others are converted through.
func (*Gadget) Hub() {}

// ConvertTo makes the stored version.
func (from *OldGadget) ConvertTo(hub conversion.Hub) error {
	to, is := hub.(*Gadget)
	if !is {
		return fmt.Errorf("%T is no hub of gadgets", hub)
	}
	to.ObjectMeta, to.Status = *from.ObjectMeta.DeepCopy(), from.Status.copy()
	to.Spec = GadgetSpec{Replicas: from.Spec.Count, Colour: from.Spec.Colour}
	return nil
}

// ConvertFrom makes the older version.
func (to *OldGadget) ConvertFrom(hub conversion.Hub) error {
	from, is := hub.(*Gadget)
	if !is {
		return fmt.Errorf("%T is no hub of gadgets", hub)
	}
	to.ObjectMeta, to.Status = *from.ObjectMeta.DeepCopy(), from.Status.copy()
	to.Spec = OldSpec{Count: from.Spec.Replicas, Colour: from.Spec.Colour}
	return nil
}

func (from GadgetStatus) copy() GadgetStatus {
	from.Conditions = append([]metav1.Condition(nil), from.Conditions...)
	return from
}

// DeepCopyObject is what client libraries want of every type.
func (from *Gadget) DeepCopyObject() runtime.Object {
	to := *from
	to.ObjectMeta, to.Status = *from.ObjectMeta.DeepCopy(), from.Status.copy()
	return &to
}

// DeepCopyObject is what client libraries want of every type.
func (from *OldGadget) DeepCopyObject() runtime.Object {
	to := *from
	to.ObjectMeta, to.Status = *from.ObjectMeta.DeepCopy(), from.Status.copy()
	return &to
}

// GadgetList is a list of the stored version.
type GadgetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Gadget `json:"items"`
}

// OldGadgetList is a list of the older version.
type OldGadgetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []OldGadget `json:"items"`
}

// DeepCopyObject is what client libraries want of every type.
func (from *GadgetList) DeepCopyObject() runtime.Object {
	to := *from
	to.Items = nil
	for index := range from.Items {
		to.Items = append(to.Items, *from.Items[index].DeepCopyObject().(*Gadget))
	}
	return &to
}

// DeepCopyObject is what client libraries want of every type.
func (from *OldGadgetList) DeepCopyObject() runtime.Object {
	to := *from
	to.Items = nil
	for index := range from.Items {
		to.Items = append(to.Items, *from.Items[index].DeepCopyObject().(*OldGadget))
	}
	return &to
}

func addTypes(scheme *runtime.Scheme) {
	scheme.AddKnownTypeWithName(stored.WithKind("Gadget"), &Gadget{})
	scheme.AddKnownTypeWithName(stored.WithKind("GadgetList"), &GadgetList{})
	scheme.AddKnownTypeWithName(older.WithKind("Gadget"), &OldGadget{})
	scheme.AddKnownTypeWithName(older.WithKind("GadgetList"), &OldGadgetList{})
	metav1.AddToGroupVersion(scheme, stored)
	metav1.AddToGroupVersion(scheme, older)
}
