//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

var resources = map[string]schema.GroupVersionResource{
	"deployment":     {Group: "apps", Version: "v1", Resource: "deployments"},
	"serviceaccount": {Version: "v1", Resource: "serviceaccounts"},
	"service":        {Version: "v1", Resource: "services"},
	"ingress":        {Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"},
	"configmap":      {Version: "v1", Resource: "configmaps"},
}

// wire is an object ready to be sent.
type wire struct {
	Resource        schema.GroupVersionResource
	Namespace, Name string
	Data            json.RawMessage
}

// loopResult is what the bare loop took.
type loopResult struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_s"`
}

// runLimit is the child process "limit": it server-side applies the objects of
// each file of args in turn, as fast as client-go does it, and prints what
// that took as one line per file.
func runLimit(ctx context.Context, access access, parallel int, files []string, out io.Writer) error {
	client, err := dynamic.NewForConfig(access.config())
	if err != nil {
		return err
	}
	for _, file := range files {
		objects, err := readObjects(file)
		if err != nil {
			return err
		}
		cpu, start := usedCPU(), time.Now()
		if err := applyAll(ctx, client, parallel, objects); err != nil {
			return err
		}
		took := loopResult{time.Since(start).Seconds(), usedCPU() - cpu}
		if err := json.NewEncoder(out).Encode(took); err != nil {
			return err
		}
	}
	return nil
}

func applyAll(ctx context.Context, client dynamic.Interface, parallel int, objects []wire) error {
	work := make(chan wire)
	errs := make([]error, parallel)
	var wg sync.WaitGroup
	for i := range parallel {
		wg.Go(func() {
			force := true
			for o := range work {
				_, err := client.Resource(o.Resource).Namespace(o.Namespace).Patch(ctx, o.Name, types.ApplyPatchType, o.Data, metav1.PatchOptions{FieldManager: "bare-loop", Force: &force})
				if err != nil && errs[i] == nil {
					errs[i] = fmt.Errorf("apply %s %s/%s: %w", o.Resource.Resource, o.Namespace, o.Name, err)
				}
			}
		})
	}
	for _, o := range objects {
		work <- o
	}
	close(work)
	wg.Wait()
	return errors.Join(errs...)
}

func readObjects(file string) ([]wire, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []wire
	for dec := json.NewDecoder(bufio.NewReader(f)); ; {
		var o wire
		if err := dec.Decode(&o); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out = append(out, o)
	}
}

// writeObjects stores the objects of the applications that keep selects.
func writeObjects(file string, apps []*app, keep func(wire) bool) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	enc := json.NewEncoder(f)
	for _, a := range apps {
		objects, err := a.objects()
		if err != nil {
			return err
		}
		for _, o := range objects {
			if !keep(o) {
				continue
			}
			if err := enc.Encode(o); err != nil {
				return err
			}
		}
	}
	return nil
}
