package health

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/lockstep-gitops/lockstep/api/argoproj/v1alpha1"
)

func TestOf(t *testing.T) {
	const (
		deploy = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, generation: 2}\n"
		sts    = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: a, generation: 2}\n"
		ds     = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: a, generation: 2}\n"
		jobs   = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\n"
		pods   = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"
		cron   = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}\n"
		hpa    = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: a}\n"
		crd    = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a}\n"
		pdb    = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: a}\n"
		app    = "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {name: a}\nspec: {source: {repoURL: r, targetRevision: v2}}\n"
		svc    = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n"
	)
	for _, c := range []struct {
		name, object string
		code         v1alpha1.HealthCode
		message      string
	}{
		{"deployment not observed", deploy + "status: {observedGeneration: 1, replicas: 1, updatedReplicas: 1, availableReplicas: 1}", v1alpha1.HealthProgressing, "to be observed (generation 2)"},
		{"deployment without status", deploy, v1alpha1.HealthProgressing, "generation 2"},
		{"deployment updating", deploy + "spec: {replicas: 3}\nstatus: {observedGeneration: 2, updatedReplicas: 1}", v1alpha1.HealthProgressing, "1 of 3 new replicas"},
		{"deployment quota", deploy + "spec: {replicas: 3}\nstatus: {observedGeneration: 2, updatedReplicas: 0, conditions: [{type: ReplicaFailure, status: 'True', message: exceeded quota}]}", v1alpha1.HealthProgressing, "exceeded quota"},
		{"deployment old pods", deploy + "status: {observedGeneration: 2, replicas: 2, updatedReplicas: 1, availableReplicas: 2}", v1alpha1.HealthProgressing, "until the new ones are available: 1"},
		{"deployment unavailable", deploy + "status: {observedGeneration: 2, replicas: 1, updatedReplicas: 1}", v1alpha1.HealthProgressing, "0 of 1 updated replicas are available"},
		{"deployment deadline", deploy + "status: {observedGeneration: 2, conditions: [{type: Progressing, status: 'False', reason: ProgressDeadlineExceeded, message: too long}]}", v1alpha1.HealthDegraded, "too long"},
		{"deployment paused", deploy + "spec: {paused: true}", v1alpha1.HealthSuspended, ""},
		{"deployment well", deploy + "status: {observedGeneration: 2, replicas: 1, updatedReplicas: 1, availableReplicas: 1}", v1alpha1.HealthHealthy, ""},
		{"deployment scaled to zero", deploy + "spec: {replicas: 0}\nstatus: {observedGeneration: 2}", v1alpha1.HealthHealthy, ""},
		{"statefulset not ready", sts + "spec: {replicas: 2}\nstatus: {observedGeneration: 2, readyReplicas: 1}", v1alpha1.HealthProgressing, "1 of 2"},
		{"statefulset old revision", sts + "status: {observedGeneration: 2, readyReplicas: 1, updateRevision: b, currentRevision: a}", v1alpha1.HealthProgressing, "new revision"},
		{"statefulset well", sts + "status: {observedGeneration: 2, readyReplicas: 1, updateRevision: a, currentRevision: a}", v1alpha1.HealthHealthy, ""},
		{"daemonset updating", ds + "status: {observedGeneration: 2, desiredNumberScheduled: 2, updatedNumberScheduled: 1}", v1alpha1.HealthProgressing, "1 of 2 pods are updated"},
		{"daemonset without nodes", ds + "status: {observedGeneration: 2}", v1alpha1.HealthHealthy, ""},
		{"job runs", jobs + "status: {active: 1}", v1alpha1.HealthProgressing, "1 active"},
		{"job failed", jobs + "status: {conditions: [{type: Failed, status: 'True', message: BackoffLimitExceeded}]}", v1alpha1.HealthDegraded, "BackoffLimitExceeded"},
		{"job done", jobs + "status: {conditions: [{type: Complete, status: 'True'}]}", v1alpha1.HealthHealthy, ""},
		{"pod pending", pods + "status: {phase: Pending}", v1alpha1.HealthProgressing, "pending"},
		{"pod pulls in vain", pods + "status: {phase: Pending, containerStatuses: [{name: web, state: {waiting: {reason: ImagePullBackOff, message: no such tag}}}]}", v1alpha1.HealthDegraded, "container web: ImagePullBackOff: no such tag"},
		{"pod is being created", pods + "status: {phase: Pending, containerStatuses: [{name: web, state: {waiting: {reason: ContainerCreating}}}]}", v1alpha1.HealthProgressing, "pending"},
		{"pod crashes", pods + "status: {phase: Running, containerStatuses: [{name: web, state: {waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {exitCode: 3, reason: Error, message: 'no DATABASE_URL'}}}]}", v1alpha1.HealthDegraded, "exit code 3: no DATABASE_URL"},
		{"pod killed", pods + "status: {phase: Running, containerStatuses: [{name: web, state: {terminated: {exitCode: 137, reason: OOMKilled}}}]}", v1alpha1.HealthDegraded, "exit code 137 (OOMKilled)"},
		{"pod without node", pods + "status: {phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable, message: 0/1 nodes}]}", v1alpha1.HealthProgressing, "0/1 nodes"},
		{"pod runs", pods + "status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}", v1alpha1.HealthHealthy, ""},
		{"service", svc, v1alpha1.HealthHealthy, ""},
		{"load balancer waits", svc + "spec: {type: LoadBalancer}", v1alpha1.HealthProgressing, "no address"},
		{"load balancer", svc + "spec: {type: LoadBalancer}\nstatus: {loadBalancer: {ingress: [{ip: 10.0.64.1}]}}", v1alpha1.HealthHealthy, ""},
		{"ingress waits", "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}", v1alpha1.HealthProgressing, "no address"},
		{"claim waits", "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: a}\nstatus: {phase: Pending}", v1alpha1.HealthProgressing, "not bound"},
		{"claim lost", "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: a}\nstatus: {phase: Lost}", v1alpha1.HealthDegraded, "lost"},
		{"autoscaler blind", "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: a}\nstatus: {conditions: [{type: AbleToScale, status: 'True'}, {type: ScalingActive, status: 'False', reason: FailedGetResourceMetric, message: no metrics}]}", v1alpha1.HealthDegraded, "no metrics"},
		{"api service", "apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: a}\nstatus: {conditions: [{type: Available, status: 'False', reason: MissingEndpoints, message: none}]}", v1alpha1.HealthProgressing, "MissingEndpoints"},
		{"deployment generation", deploy + "spec: {replicas: 1}\nstatus: {observedGeneration: 1, replicas: 1, updatedReplicas: 1, availableReplicas: 1}", v1alpha1.HealthProgressing, "observed"},
		{"statefulset partition", sts + "spec: {replicas: 3, updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 2}}}\nstatus: {observedGeneration: 2, readyReplicas: 3, updatedReplicas: 1, updateRevision: b, currentRevision: a}", v1alpha1.HealthHealthy, ""},
		{"statefulset partition goes on", sts + "spec: {replicas: 3, updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 1}}}\nstatus: {observedGeneration: 2, readyReplicas: 3, updatedReplicas: 1}", v1alpha1.HealthProgressing, "1 of 2"},
		{"statefulset on delete", sts + "spec: {replicas: 1, updateStrategy: {type: OnDelete}}\nstatus: {observedGeneration: 2, readyReplicas: 1, updateRevision: b, currentRevision: a}", v1alpha1.HealthHealthy, ""},
		{"daemonset on delete", ds + "spec: {updateStrategy: {type: OnDelete}}\nstatus: {observedGeneration: 2, desiredNumberScheduled: 2, updatedNumberScheduled: 1}", v1alpha1.HealthHealthy, "1 of 2"},
		{"daemonset unavailable", ds + "status: {observedGeneration: 2, desiredNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: 1}", v1alpha1.HealthProgressing, "1 of 2"},
		{"replicaset fails", "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: a, generation: 1}\nstatus: {observedGeneration: 1, conditions: [{type: ReplicaFailure, status: 'True', message: quota}]}", v1alpha1.HealthDegraded, "quota"},
		{"replicaset", "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: a, generation: 1}\nspec: {replicas: 2}\nstatus: {observedGeneration: 1, availableReplicas: 1}", v1alpha1.HealthProgressing, "1 of 2"},
		{"job suspended", jobs + "status: {conditions: [{type: Suspended, status: 'True', message: Job suspended}]}", v1alpha1.HealthSuspended, "Job suspended"},
		{"job resumed", jobs + "status: {active: 1, conditions: [{type: Suspended, status: 'False'}]}", v1alpha1.HealthProgressing, "1 active"},
		{"cron new", cron + "status: {}", v1alpha1.HealthHealthy, "no run was due"},
		{"cron suspended", cron + "spec: {suspend: true}", v1alpha1.HealthSuspended, ""},
		{"cron failed", cron + "status: {lastScheduleTime: '2026-01-02T00:00:00Z', lastSuccessfulTime: '2026-01-01T00:00:09Z'}", v1alpha1.HealthDegraded, "2026-01-02"},
		{"cron runs", cron + "status: {active: [{name: b}], lastScheduleTime: '2026-01-02T00:00:00Z', lastSuccessfulTime: '2026-01-01T00:00:09Z'}", v1alpha1.HealthHealthy, "active"},
		{"cron never", cron + "status: {lastScheduleTime: '2026-01-02T00:00:00Z'}", v1alpha1.HealthHealthy, ""},
		{"cron well", cron + "status: {lastScheduleTime: '2026-01-02T00:00:00Z', lastSuccessfulTime: '2026-01-02T00:00:09Z'}", v1alpha1.HealthHealthy, "succeeded"},
		{"pod that ends", pods + "spec: {restartPolicy: Never}\nstatus: {phase: Running, conditions: [{type: Ready, status: 'True'}]}", v1alpha1.HealthProgressing, ""},
		{"pod that ends, image", pods + "spec: {restartPolicy: OnFailure}\nstatus: {phase: Pending, containerStatuses: [{name: web, state: {waiting: {reason: ErrImagePull}}}]}", v1alpha1.HealthProgressing, "ErrImagePull"},
		{"pod that ends, by annotation", "apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {argocd.argoproj.io/ignore-restart-policy: 'true'}}\nspec: {restartPolicy: Never}\nstatus: {phase: Running, conditions: [{type: Ready, status: 'True'}]}", v1alpha1.HealthHealthy, ""},
		{"pod restarted", pods + "status: {phase: Running, containerStatuses: [{name: web, state: {running: {}}, lastState: {terminated: {exitCode: 1}}}]}", v1alpha1.HealthDegraded, "exit code 1"},
		{"pod failed", pods + "status: {phase: Failed, message: evicted}", v1alpha1.HealthDegraded, "evicted"},
		{"pod of unknown phase", pods + "status: {phase: Unknown}", v1alpha1.HealthUnknown, ""},
		{"autoscaler", hpa + "status: {conditions: [{type: ScalingActive, status: 'True'}, {type: AbleToScale, status: 'True', message: ready}]}", v1alpha1.HealthHealthy, "ready"},
		{"autoscaler new", hpa + "status: {}", v1alpha1.HealthProgressing, ""},
		{"autoscaler v1", "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\nmetadata: {name: a, annotations: {autoscaling.alpha.kubernetes.io/conditions: '[{\"type\": \"AbleToScale\", \"status\": \"False\", \"reason\": \"FailedGetScale\", \"message\": \"none\"}]'}}", v1alpha1.HealthDegraded, "none"},
		{"autoscaler v1 bad", "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\nmetadata: {name: a, annotations: {autoscaling.alpha.kubernetes.io/conditions: '['}}", v1alpha1.HealthUnknown, "cannot be read"},
		{"definition", crd + "status: {conditions: [{type: NamesAccepted, status: 'True'}, {type: Established, status: 'True'}]}", v1alpha1.HealthHealthy, ""},
		{"definition new", crd, v1alpha1.HealthProgressing, ""},
		{"definition clash", crd + "status: {conditions: [{type: NamesAccepted, status: 'False', message: taken}]}", v1alpha1.HealthDegraded, "taken"},
		{"budget", pdb + "status: {conditions: [{type: DisruptionAllowed, status: 'False', reason: InsufficientPods}]}", v1alpha1.HealthHealthy, ""},
		{"budget fails", pdb + "status: {conditions: [{type: DisruptionAllowed, status: 'False', reason: SyncFailed, message: two}]}", v1alpha1.HealthDegraded, "SyncFailed"},
		{"child application", app + "status: {health: {status: Degraded, message: child}}", v1alpha1.HealthDegraded, "child"},
		{"child application new", app, v1alpha1.HealthProgressing, ""},
		{"child application old source", app + "status: {health: {status: Healthy}, sync: {comparedTo: {source: {repoURL: r, targetRevision: v1}}}}", v1alpha1.HealthProgressing, "newest source"},
		{"child application syncs", app + "status: {health: {status: Healthy}, operationState: {phase: Running}}", v1alpha1.HealthProgressing, "sync"},
		{"going", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, deletionTimestamp: '2026-01-01T00:00:00Z'}", v1alpha1.HealthProgressing, "being deleted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &unstructured.Unstructured{}
			data, err := yaml.YAMLToJSON([]byte(c.object))
			if err != nil {
				t.Fatal(err)
			}
			if err := o.UnmarshalJSON(data); err != nil {
				t.Fatal(err)
			}
			got, ok := Of(o)
			if !ok || got.Code != c.code || !strings.Contains(got.Message, c.message) {
				t.Errorf("got %v %q (%v); want %v with %q", got.Code, got.Message, ok, c.code, c.message)
			}
		})
	}
	if _, ok := Of(&unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}}); ok {
		t.Error("a ConfigMap has health")
	}
	if !Worse(v1alpha1.HealthDegraded, v1alpha1.HealthProgressing) || Worse(v1alpha1.HealthHealthy, v1alpha1.HealthHealthy) {
		t.Error("the order of health codes")
	}
}
