package csi

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	csispec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lockstep-gitops/lockstep/internal/csi/provider"
	"github.com/lockstep-gitops/lockstep/internal/csi/volume"
	"github.com/lockstep-gitops/lockstep/internal/journal"
)

// attrClass is the one volume attribute that a pod's author writes.
const attrClass = "secretProviderClass"

// node is CSI's Node service.
type node struct {
	csispec.UnimplementedNodeServer
	*Driver
}

// publication is one checked request to publish a volume.
type publication struct {
	target     string
	class      string
	pod        podRef
	gid        int // of the files, or volume.NoGID
	attributes map[string]string
	secrets    map[string]string
}

// podRef names a pod.
type podRef struct{ namespace, name, uid string }

func (p podRef) String() string { return p.namespace + "/" + p.name }

// NodePublishVolume mounts a pod's secrets, or brings a mounted volume up to
// date when kubelet calls again (requiresRepublish).
func (n *node) NodePublishVolume(ctx context.Context, req *csispec.NodePublishVolumeRequest) (*csispec.NodePublishVolumeResponse, error) {
	p, err := n.check(req)
	if err != nil {
		return nil, err
	}
	state, release, ok := n.volumes.acquire(p.target)
	if !ok {
		return nil, status.Errorf(codes.Aborted, "another call is working on %s", p.target)
	}
	defer release()
	mounted, err := volume.Mounted(p.target)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, n.config.MountTimeout)
	defer cancel()
	// A mount without content is one that a crash cut short.
	if mounted && volume.Written(p.target) {
		n.rotate(ctx, p, state)
		return &csispec.NodePublishVolumeResponse{}, nil
	}
	if err := n.mountFirst(ctx, p, state); err != nil {
		e := provider.AsError(err)
		return nil, status.Errorf(e.Code, "failed to mount secrets store objects for pod %s: %s", p.pod, e)
	}
	return &csispec.NodePublishVolumeResponse{}, nil
}

// check refuses requests that no kubelet should send, in upstream's words.
func (n *node) check(req *csispec.NodePublishVolumeRequest) (publication, error) {
	attributes := req.GetVolumeContext()
	p := publication{target: req.GetTargetPath(), class: attributes[attrClass], gid: volume.NoGID,
		attributes: attributes, secrets: req.GetSecrets(),
		pod: podRef{attributes[provider.AttrPodNamespace], attributes[provider.AttrPodName], attributes[provider.AttrPodUID]}}
	bad := func(format string, args ...any) (publication, error) {
		return p, status.Errorf(codes.InvalidArgument, format, args...)
	}
	switch {
	case req.GetVolumeCapability() == nil:
		return bad("Volume capability missing in request")
	case req.GetVolumeId() == "":
		return bad("Volume ID missing in request")
	case p.target == "":
		return bad("Target path missing in request")
	case len(attributes) == 0:
		return bad("Volume attributes missing in request")
	case !req.GetReadonly():
		return bad("Readonly is not true in request; set csi.readOnly: true on the pod's volume")
	case p.class == "":
		return bad("secretProviderClass is not set; name one in the volume's volumeAttributes")
	case p.pod.namespace == "" || p.pod.name == "":
		return bad("the request does not name its pod; the CSIDriver object %s needs podInfoOnMount: true", n.config.DriverName)
	}
	if err := n.checkTarget(p.target); err != nil {
		return p, err
	}
	if group := req.GetVolumeCapability().GetMount().GetVolumeMountGroup(); group != "" {
		gid, err := strconv.ParseUint(group, 10, 31)
		if err != nil {
			return bad("fsGroup %q is not a group id", group)
		}
		p.gid = int(gid)
	}
	return p, nil
}

// checkTarget keeps the driver's hands off everything but kubelet's volumes.
func (n *node) checkTarget(target string) error {
	if filepath.Clean(target) != target || !strings.HasPrefix(target, n.config.KubeletDir+string(filepath.Separator)) {
		return status.Errorf(codes.InvalidArgument, "target path %s is not below kubelet's directory %s", target, n.config.KubeletDir)
	}
	return nil
}

// mountFirst gives a pod its secrets or fails without leaving a mount.
func (n *node) mountFirst(ctx context.Context, p publication, state *volumeState) error {
	subject := journal.Event{Subject: p.pod.String(), Data: map[string]string{"class": p.class}}
	if state.failure == "" { // not for each of kubelet's retries
		started := subject
		started.Status, started.Message = journal.StatusStarted, fmt.Sprintf("mounting the secrets of SecretProviderClass %s/%s", p.pod.namespace, p.class)
		n.record(ctx, started)
	}
	result, _, err := n.refresh(ctx, p, state)
	if err != nil {
		if umountErr := volume.Unmount(p.target); umountErr != nil {
			n.log.Error("could not take back a failed mount", "target", p.target, "error", umountErr)
		}
		e := provider.AsError(err)
		if e.Error() != state.failure {
			failed := subject
			failed.Status, failed.Message, failed.Hint = journal.StatusFailed, e.Message, e.Hint
			n.record(ctx, failed)
		}
		state.failure = e.Error()
		return err
	}
	state.failure = ""
	for _, w := range result.Warnings {
		n.log.Warn("SecretProviderClass", "class", p.pod.namespace+"/"+p.class, "warning", w)
		warned := subject
		warned.Status, warned.Message = journal.StatusInfo, fmt.Sprintf("SecretProviderClass %s/%s: %s", p.pod.namespace, p.class, w)
		n.record(ctx, warned)
	}
	done := subject
	done.Status = journal.StatusSucceeded
	done.Message = fmt.Sprintf("mounted %s from %s", nameObjects(result.Versions), result.Source)
	n.record(ctx, done)
	return nil
}

// rotate reads a mounted volume anew when it is due. Its errors go to events
// and the journal, never to kubelet: older ones take the volume from a running
// pod when a republish fails (kubernetes#121271).
func (n *node) rotate(ctx context.Context, p publication, state *volumeState) {
	if !n.config.rotates() || n.now().Before(state.due(p.target, n.config.RotationPollInterval)) {
		return
	}
	before := maps.Clone(state.versions)
	result, changed, err := n.refresh(ctx, p, state)
	event := journal.Event{Subject: p.pod.String(), Data: map[string]string{"class": p.class}}
	switch {
	case err != nil:
		e := provider.AsError(err)
		n.log.Warn("secrets not refreshed; the pod keeps the last ones", "pod", p.pod.String(), "class", p.class, "error", err)
		if e.Error() == state.failure {
			return
		}
		state.failure = e.Error()
		event.Status, event.Message, event.Hint = journal.StatusFailed, "not refreshed, the pod keeps its last secrets: "+e.Message, e.Hint
		n.record(ctx, event)
		n.podEvent(ctx, p.pod, "Warning", "MountRotationFailed", e.Error())
	case changed:
		event.Status = journal.StatusSucceeded
		event.Message = fmt.Sprintf("rotated %s from %s", nameChanges(before, result.Versions), result.Source)
		n.record(ctx, event)
		n.podEvent(ctx, p.pod, "Normal", "MountRotationComplete", event.Message)
	case state.failure != "":
		event.Status, event.Message = journal.StatusSucceeded, "secrets are up to date again from "+result.Source
		n.record(ctx, event)
	}
	if err == nil {
		state.failure = ""
	}
}

// nameObjects lists object ids for people.
func nameObjects(versions map[string]string) string {
	return strings.Join(slices.Sorted(maps.Keys(versions)), ", ")
}

// nameChanges lists the objects whose versions differ, or all of them.
func nameChanges(before, after map[string]string) string {
	changed := map[string]string{}
	for id, v := range after {
		if before[id] != v {
			changed[id] = v
		}
	}
	if len(changed) == 0 || len(before) == 0 {
		changed = after
	}
	return nameObjects(changed)
}

// NodeUnpublishVolume takes a volume away; it succeeds when none is there.
func (n *node) NodeUnpublishVolume(_ context.Context, req *csispec.NodeUnpublishVolumeRequest) (*csispec.NodeUnpublishVolumeResponse, error) {
	target := req.GetTargetPath()
	switch {
	case req.GetVolumeId() == "":
		return nil, status.Error(codes.InvalidArgument, "Volume ID missing in request")
	case target == "":
		return nil, status.Error(codes.InvalidArgument, "Target path missing in request")
	}
	if err := n.checkTarget(target); err != nil {
		return nil, err
	}
	_, release, ok := n.volumes.acquire(target)
	if !ok {
		return nil, status.Errorf(codes.Aborted, "another call is working on %s", target)
	}
	defer release()
	if err := volume.Unmount(target); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	n.volumes.forget(target)
	return &csispec.NodeUnpublishVolumeResponse{}, nil
}

// NodeStageVolume has nothing to do; upstream advertises it, too.
func (n *node) NodeStageVolume(_ context.Context, req *csispec.NodeStageVolumeRequest) (*csispec.NodeStageVolumeResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, status.Error(codes.InvalidArgument, "Volume ID missing in request")
	case req.GetStagingTargetPath() == "":
		return nil, status.Error(codes.InvalidArgument, "Target path missing in request")
	case req.GetVolumeCapability() == nil:
		return nil, status.Error(codes.InvalidArgument, "Volume capability missing in request")
	}
	return &csispec.NodeStageVolumeResponse{}, nil
}

// NodeUnstageVolume has nothing to do.
func (n *node) NodeUnstageVolume(_ context.Context, req *csispec.NodeUnstageVolumeRequest) (*csispec.NodeUnstageVolumeResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, status.Error(codes.InvalidArgument, "Volume ID missing in request")
	case req.GetStagingTargetPath() == "":
		return nil, status.Error(codes.InvalidArgument, "Target path missing in request")
	}
	return &csispec.NodeUnstageVolumeResponse{}, nil
}

// NodeGetInfo names the node.
func (n *node) NodeGetInfo(context.Context, *csispec.NodeGetInfoRequest) (*csispec.NodeGetInfoResponse, error) {
	return &csispec.NodeGetInfoResponse{NodeId: n.config.NodeName}, nil
}

// NodeGetCapabilities says that kubelet leaves fsGroup to the driver.
func (n *node) NodeGetCapabilities(context.Context, *csispec.NodeGetCapabilitiesRequest) (*csispec.NodeGetCapabilitiesResponse, error) {
	resp := &csispec.NodeGetCapabilitiesResponse{}
	for _, c := range []csispec.NodeServiceCapability_RPC_Type{
		csispec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csispec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP,
	} {
		resp.Capabilities = append(resp.Capabilities, &csispec.NodeServiceCapability{
			Type: &csispec.NodeServiceCapability_Rpc{Rpc: &csispec.NodeServiceCapability_RPC{Type: c}}})
	}
	return resp, nil
}
