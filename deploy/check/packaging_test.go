// Package check holds what is shipped beside the program against the programs
// that will read it: a module of its own, because Helm, Kubernetes, BuildKit and
// Compose come along. It consists of its tests.
//
//	make packaging-check
package check

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"helm.sh/helm/v3/pkg/action"
	chartloader "helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
)

// stopBudget is how long singil run may take to stop, as its source says: the
// attaches under way, and ten seconds more.
func stopBudget(t *testing.T) time.Duration {
	t.Helper()
	found := regexp.MustCompile(`drainTimeout = (\d+) \* time\.Second`).FindStringSubmatch(read(t, "../../cmd/singil/daemon.go"))
	if found == nil {
		t.Fatal("cmd/singil/daemon.go has no drainTimeout")
	}
	seconds, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(seconds)*time.Second + 10*time.Second
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// settings are the names that the program takes from the environment.
func settings(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, m := range regexp.MustCompile("env:\"([A-Z_]+)").FindAllStringSubmatch(read(t, "../../cmd/singil/config.go"), -1) {
		names = append(names, m[1])
	}
	if len(names) < 10 {
		t.Fatalf("only the settings %q: this looks at the wrong place", names)
	}
	return names
}

func TestDockerfile(t *testing.T) {
	t.Parallel()
	stages, complaints, err := dockerfile(read(t, "../docker/Dockerfile"))
	if err != nil || len(complaints) > 0 {
		t.Fatal(err, complaints)
	}
	last := stages[len(stages)-1]
	has := map[string]bool{}
	for _, c := range last.Commands {
		has[strings.ToLower(c.Name())] = true
		if user, ok := c.(*instructions.UserCommand); ok && user.User != "65532:65532" {
			t.Errorf("the image runs as %s", user.User)
		}
	}
	for _, want := range []string{"user", "healthcheck", "entrypoint"} {
		if !has[want] {
			t.Errorf("the image has no %s", want)
		}
	}
	// What the build needs is let through, and exists.
	for line := range strings.Lines(read(t, "../docker/Dockerfile.dockerignore")) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			if _, err := os.Stat(filepath.Join("../..", name)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, wrong := range []string{"FROM scratch\nRUNN true", "FROM scratch\nMAINTAINER me", "FROM scratch as x\nfrom scratch"} {
		if _, complaints, err := dockerfile(wrong); err == nil && len(complaints) == 0 {
			t.Errorf("nothing is said about %q", wrong)
		}
	}
}

func dockerfile(content string) (stages []instructions.Stage, complaints []string, err error) {
	parsed, err := parser.Parse(strings.NewReader(content))
	if err != nil {
		return nil, nil, err
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, _ []parser.Range) {
		complaints = append(complaints, rule+": "+message)
	}})
	stages, _, err = instructions.Parse(parsed.AST, lint)
	for _, w := range parsed.Warnings {
		complaints = append(complaints, w.Short)
	}
	return stages, complaints, err
}

func TestCompose(t *testing.T) {
	t.Parallel()
	file, err := filepath.Abs("../compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: filepath.Dir(file), ConfigFiles: []types.ConfigFile{{Filename: file}}, Environment: types.Mapping{},
	})
	if err != nil {
		t.Fatal(err)
	}
	known := settings(t)
	witnesses := map[string]string{}
	for name, s := range project.Services {
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				if _, err := os.Stat(v.Source); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		if s.Image != "singil:dev" {
			continue
		}
		if !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") {
			t.Errorf("%s is not hardened", name)
		}
		for variable := range s.Environment {
			if !slices.Contains(known, variable) {
				t.Errorf("%s: %s is no setting", name, variable)
			}
		}
		if slices.Equal(s.Command, []string{"run"}) {
			if s.StopGracePeriod == nil || time.Duration(*s.StopGracePeriod) <= stopBudget(t) {
				t.Errorf("%s is killed before it has stopped", name)
			}
			for _, v := range s.Volumes {
				if other, taken := witnesses[v.Source]; taken {
					t.Errorf("%s and %s share a witness", name, other)
				}
				witnesses[v.Source] = name
			}
		}
	}
	if len(witnesses) != 2 {
		t.Errorf("%d daemons with a witness", len(witnesses))
	}
}

// rendered is the chart with some values, decoded as Kubernetes would, strictly.
func rendered(t *testing.T, values map[string]any) []runtime.Object {
	t.Helper()
	chart, err := chartloader.Load("../helm/singil")
	if err != nil {
		t.Fatal(err)
	}
	all, err := chartutil.ToRenderValues(chart, values, chartutil.ReleaseOptions{Name: "billing", Namespace: "money", IsInstall: true}, chartutil.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Engine{Strict: true}.Render(chart, all)
	if err != nil {
		t.Fatal(err)
	}
	strict := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	var objects []runtime.Object
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content := strings.TrimSpace(files[name])
		// Prometheus Operator's kinds are not Kubernetes's.
		if content == "" || strings.HasSuffix(name, ".txt") || strings.HasSuffix(name, "servicemonitor.yaml") {
			continue
		}
		object, _, err := strict.Decode([]byte(content), nil, nil)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, content)
		}
		objects = append(objects, object)
	}
	return objects
}

func TestChart(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		values  map[string]any
		objects int
	}{
		"defaults": {nil, 5},
		"everything": {map[string]any{
			"witness":       map[string]any{"persistent": true, "storageClassName": "fast"},
			"networkPolicy": map[string]any{"from": []any{map[string]any{"podSelector": map[string]any{}}}, "databaseTo": []any{map[string]any{"ipBlock": map[string]any{"cidr": "10.0.0.0/8"}}}},
			"settings":      map[string]any{"SINGIL_TIME_ZONE": "Asia/Manila", "PAYMONGO_RATE": "40"},
			"image":         map[string]any{"digest": "sha256:0000000000000000000000000000000000000000000000000000000000000000", "pullSecrets": []any{map[string]any{"name": "x"}}},
			"podLabels":     map[string]any{"team": "billing"}, "podAnnotations": map[string]any{"a": "b"}, "nodeSelector": map[string]any{"a": "b"},
			"tolerations": []any{map[string]any{"operator": "Exists"}}, "priorityClassName": "high", "serviceMonitor": map[string]any{"enabled": true, "labels": map[string]any{"a": "b"}},
		}, 5},
		"little": {map[string]any{
			"migrate": map[string]any{"enabled": false}, "networkPolicy": map[string]any{"enabled": false}, "podDisruptionBudget": map[string]any{"enabled": false},
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lint := action.NewLint()
			lint.Strict = true
			for _, m := range lint.Run([]string{"../helm/singil"}, tt.values).Messages {
				if m.Err != nil && !strings.Contains(m.Err.Error(), "icon is recommended") {
					t.Error(m)
				}
			}
			objects := rendered(t, tt.values)
			if len(objects) != tt.objects {
				t.Errorf("%d objects, want %d", len(objects), tt.objects)
			}
			pods := 0
			for _, o := range objects {
				switch o := o.(type) {
				case *appsv1.Deployment:
					pods++
					checkDaemon(t, o.Spec.Template.Spec)
				case *appsv1.StatefulSet:
					pods++
					checkDaemon(t, o.Spec.Template.Spec)
				case *batchv1.Job:
					checkPod(t, o.Spec.Template.Spec)
				}
			}
			if pods != 1 {
				t.Errorf("%d kinds of daemons", pods)
			}
		})
	}
	if _, err := chartutil.ToRenderValues(must(chartloader.Load("../helm/singil")), map[string]any{"environment": "prod"}, chartutil.ReleaseOptions{}, nil); err == nil {
		t.Error("the environment prod was taken")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func checkPod(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken || pod.SecurityContext == nil || !*pod.SecurityContext.RunAsNonRoot {
		t.Error("the pod is not hardened")
	}
	// Of a service named singil they would begin with SINGIL_.
	if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks {
		t.Error("service links are settings that singil refuses")
	}
	known := settings(t)
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		s := c.SecurityContext
		if s == nil || !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || !slices.Contains(s.Capabilities.Drop, "ALL") {
			t.Errorf("container %s is not hardened", c.Name)
		}
		for _, e := range c.Env {
			if !slices.Contains(known, e.Name) {
				t.Errorf("container %s: %s is no setting", c.Name, e.Name)
			}
		}
		if len(c.EnvFrom) == 0 || c.EnvFrom[0].SecretRef.Name == "" {
			t.Errorf("container %s has no secret", c.Name)
		}
	}
}

func checkDaemon(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	checkPod(t, pod)
	c := pod.Containers[0]
	before := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	if grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; grace <= before+stopBudget(t) {
		t.Errorf("%s are granted: %s before the signal and %s after it", grace, before, stopBudget(t))
	}
	if c.LivenessProbe.HTTPGet.Path != "/healthz" || c.ReadinessProbe.HTTPGet.Path != "/readyz" {
		t.Error("the probes ask for something else")
	}
}

func TestUnit(t *testing.T) {
	t.Parallel()
	content := read(t, "../systemd/singil.service")
	found := regexp.MustCompile(`(?m)^TimeoutStopSec=(\d+)s$`).FindStringSubmatch(content)
	if found == nil {
		t.Fatal("no TimeoutStopSec in seconds")
	}
	if seconds, err := strconv.Atoi(found[1]); err != nil || time.Duration(seconds)*time.Second <= stopBudget(t) {
		t.Errorf("systemd grants %s s, and stopping may take %s", found[1], stopBudget(t))
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("NOT CHECKED by systemd: there is no systemd-analyze (Debian: apt-get install systemd)")
	}
	// It looks for the program, which need not be installed here.
	unit := filepath.Join(t.TempDir(), "singil.service")
	verify := func(content string) string {
		if err := os.WriteFile(unit, []byte(strings.Replace(content, "/usr/bin/singil run", "/bin/true", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		cmd := exec.CommandContext(t.Context(), analyze, "verify", unit)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(&out, err)
		}
		return out.String()
	}
	if said := verify(content); said != "" { // a key that it does not know is a warning, and exit code 0
		t.Error(said)
	}
	if said := verify(strings.Replace(content, "ProtectHome=", "ProtectHose=", 1)); said == "" {
		t.Error("nothing is said about a key that does not exist")
	}
	if out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=20", unit).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
