package container

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Call is a `docker run` or `docker create` as its arguments say it.
type Call struct {
	Spec        Spec
	Detach      bool
	Remove      bool
	Interactive bool
	Pull        string // always, missing, never
	Platform    string
	Labels      []string
	// Notes are options that were taken and change nothing here, with why.
	Notes []string
}

// without are options that are taken and change nothing, and why.
var without = map[string]string{
	"init": "the container always has one", "log-driver": "logs are kept by the job", "log-opt": "logs are kept by the job",
	"restart": "a container that ends is not started again", "ulimit": "limits are the job's", "dns": "names are resolved by the proxy",
	"dns-search": "names are resolved by the proxy", "dns-option": "names are resolved by the proxy",
	"security-opt": "every container has the same protection", "cap-drop": "every container has the same capabilities",
	"shm-size": "/dev/shm is as large as the job's disk", "oom-kill-disable": "limits are the job's", "memory-swap": "containers do not swap",
	"memory-reservation": "limits are the job's", "ipc": "each container has its own", "cgroupns": "each container has its own",
	"userns": "it is the job's", "sig-proxy": "", "quiet": "", "tty": "there is no terminal", "attach": "", "cidfile": "it is not written",
	"cpuset-cpus": "processors are shared by weight", "cpu-period": "processors are shared by weight", "cpu-quota": "processors are shared by weight",
	"expose": "containers reach each other at every port", "disable-content-trust": "",
}

// refused are options that would open the sandbox, and what to do instead.
var refused = map[string]string{
	"privileged": "containers get no more power than the job; leave it out", "device": "there are no devices; leave it out",
	"gpus": "there are no devices; leave it out", "pid": "each container has its own processes", "uts": "each container has its own host name",
	"env-file": "name each variable with --env", "volumes-from": "name each volume with --volume", "link": "use the other container's name",
	"sysctl": "kernel settings are read-only", "runtime": "there is one runtime", "ip": "addresses are given by the job", "mac-address": "addresses are given by the job",
	"publish-all": "name each port with --publish",
}

// keptCaps are capabilities that every container has anyway.
var keptCaps = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE",
	"NET_RAW", "SYS_CHROOT", "AUDIT_WRITE", "SETFCAP"}

// ParseRun reads the arguments of `docker run` after the verb: options, the
// image, and its arguments. Env variables without a value are looked up in env.
func ParseRun(args, env []string) (Call, error) {
	c := Call{}
	f := c.flags()
	if err := f.parse(args, env); err != nil {
		return c, err
	}
	rest := f.set.Args()
	if len(rest) == 0 {
		return c, errors.New("no image is named")
	}
	c.Spec.Image = rest[0]
	if len(rest) > 1 {
		c.Spec.Args = rest[1:]
	}
	return c, nil
}

// ParseOptions reads the `options` of a job container or service, which are
// those of `docker create`, already split into words.
func ParseOptions(words []string) (Call, error) {
	c := Call{}
	f := c.flags()
	if err := f.parse(words, nil); err != nil {
		return c, fmt.Errorf("container options: %w", err)
	}
	if rest := f.set.Args(); len(rest) > 0 {
		return c, fmt.Errorf("container options: %q is no option", rest[0])
	}
	return c, nil
}

// flags are the options while they are read.
type flags struct {
	call *Call
	set  *pflag.FlagSet

	entrypoint, healthCmd, memory, cpus string
	healthRetries, cpuShares            int
	pids                                int64
	healthInterval, healthTimeout       time.Duration
	healthStart, startInterval          time.Duration
	noHealth                            bool
	stopTimeout                         int
	mounts, tmpfs, caps                 []string
}

func (c *Call) flags() *flags {
	f := &flags{call: c, set: pflag.NewFlagSet("docker run", pflag.ContinueOnError)}
	s, spec := f.set, &c.Spec
	s.SetInterspersed(false)
	s.SetOutput(io.Discard)
	s.Usage = func() {}
	s.BoolVarP(&c.Detach, "detach", "d", false, "")
	s.BoolVar(&c.Remove, "rm", false, "")
	s.BoolVarP(&c.Interactive, "interactive", "i", false, "")
	s.StringVar(&c.Pull, "pull", "missing", "")
	s.StringVar(&c.Platform, "platform", "", "")
	s.StringArrayVarP(&c.Labels, "label", "l", nil, "")
	s.StringVar(&spec.Name, "name", "", "")
	s.StringArrayVarP(&spec.Env, "env", "e", nil, "")
	s.StringArrayVarP(&spec.Volumes, "volume", "v", nil, "")
	s.StringArrayVarP(&spec.Ports, "publish", "p", nil, "")
	s.StringArrayVar(&f.mounts, "mount", nil, "")
	s.StringArrayVar(&f.tmpfs, "tmpfs", nil, "")
	s.StringArrayVar(&f.caps, "cap-add", nil, "")
	s.StringArrayVar(&spec.Aliases, "network-alias", nil, "")
	s.StringArrayVar(&spec.Aliases, "net-alias", nil, "")
	s.StringArrayVar(&spec.Hosts, "add-host", nil, "")
	s.StringVarP(&spec.User, "user", "u", "", "")
	s.StringVarP(&spec.Dir, "workdir", "w", "", "")
	s.StringVarP(&spec.Hostname, "hostname", "h", "", "")
	s.StringVar(&spec.Network, "network", "", "")
	s.StringVar(&spec.Network, "net", "", "")
	s.StringVar(&f.entrypoint, "entrypoint", "", "")
	s.BoolVar(&spec.ReadOnly, "read-only", false, "")
	s.StringVar(&spec.StopSignal, "stop-signal", "", "")
	s.IntVar(&f.stopTimeout, "stop-timeout", 0, "")
	s.StringVarP(&f.memory, "memory", "m", "", "")
	s.StringVar(&f.cpus, "cpus", "", "")
	s.IntVarP(&f.cpuShares, "cpu-shares", "c", 0, "")
	s.Int64Var(&f.pids, "pids-limit", 0, "")
	s.StringVar(&f.healthCmd, "health-cmd", "", "")
	s.DurationVar(&f.healthInterval, "health-interval", 0, "")
	s.DurationVar(&f.healthTimeout, "health-timeout", 0, "")
	s.DurationVar(&f.healthStart, "health-start-period", 0, "")
	s.DurationVar(&f.startInterval, "health-start-interval", 0, "")
	s.IntVar(&f.healthRetries, "health-retries", 0, "")
	s.BoolVar(&f.noHealth, "no-healthcheck", false, "")
	short := map[string]string{"tty": "t", "attach": "a", "quiet": "q", "publish-all": "P"}
	for name := range without {
		f.ignore(name, short[name])
	}
	for name := range refused {
		f.ignore(name, short[name])
	}
	return f
}

// ignore defines an option whose value does not matter.
func (f *flags) ignore(name, short string) {
	switch name {
	case "init", "oom-kill-disable", "sig-proxy", "quiet", "tty", "privileged", "publish-all", "disable-content-trust":
		f.set.BoolP(name, short, false, "")
	default:
		f.set.StringArrayP(name, short, nil, "")
	}
}

func (f *flags) parse(args, env []string) error {
	if err := f.set.Parse(args); err != nil {
		return err
	}
	var err error
	f.set.Visit(func(flag *pflag.Flag) {
		if why, ok := refused[flag.Name]; ok && flag.Value.String() != "false" && err == nil {
			err = fmt.Errorf("--%s is not supported: %s", flag.Name, why)
		}
		if why := without[flag.Name]; why != "" {
			f.call.Notes = append(f.call.Notes, fmt.Sprintf("--%s changes nothing here: %s", flag.Name, why))
		}
	})
	if err != nil {
		return err
	}
	spec := &f.call.Spec
	if f.set.Changed("entrypoint") {
		spec.Entrypoint = []string{}
		if f.entrypoint != "" {
			spec.Entrypoint = []string{f.entrypoint}
		}
	}
	spec.StopGrace = time.Duration(f.stopTimeout) * time.Second
	var given []string
	for _, kv := range spec.Env {
		if !strings.Contains(kv, "=") {
			i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, kv+"=") })
			if i < 0 {
				continue
			}
			kv = env[i]
		}
		given = append(given, kv)
	}
	spec.Env = given
	for _, c := range f.caps {
		if !slices.Contains(keptCaps, strings.TrimPrefix(strings.ToUpper(c), "CAP_")) {
			return fmt.Errorf("--cap-add %s is not supported: containers get no more power than the job", c)
		}
	}
	for _, t := range f.tmpfs {
		target, _, _ := strings.Cut(t, ":")
		spec.Volumes = append(spec.Volumes, target)
	}
	for _, m := range f.mounts {
		v, err := parseMount(m)
		if err != nil {
			return err
		}
		spec.Volumes = append(spec.Volumes, v)
	}
	for _, p := range spec.Ports {
		if _, err := parsePort(p); err != nil {
			return err
		}
	}
	for _, v := range spec.Volumes {
		if _, _, _, err := parseVolume(v); err != nil {
			return err
		}
	}
	if spec.Network == "none" {
		return errors.New("--network none is not supported: leave it out, or use host")
	}
	if err := f.limits(); err != nil {
		return err
	}
	f.health()
	return nil
}

func (f *flags) limits() error {
	l := &f.call.Spec.Limits
	if f.memory != "" {
		n, err := parseSize(f.memory)
		if err != nil {
			return fmt.Errorf("--memory: %w", err)
		}
		l.Memory = n
	}
	l.PIDs = max(f.pids, 0)
	if f.cpuShares > 0 {
		l.CPU = max(1, int64(f.cpuShares)*100/1024)
	}
	if f.cpus != "" {
		n, err := strconv.ParseFloat(f.cpus, 64)
		if err != nil || !(n > 0 && n <= 1024) {
			return fmt.Errorf("--cpus %q: want a number of processors", f.cpus)
		}
		l.CPU = max(1, min(10000, int64(n*100)))
		f.call.Notes = append(f.call.Notes, "--cpus is a share of the processors here, no upper bound")
	}
	return nil
}

func (f *flags) health() {
	names := []string{"health-cmd", "health-interval", "health-timeout", "health-start-period", "health-retries"}
	if !f.noHealth && !slices.ContainsFunc(names, f.set.Changed) {
		return
	}
	h := &Health{Interval: f.healthInterval, Timeout: f.healthTimeout, StartPeriod: f.healthStart, Retries: f.healthRetries}
	switch {
	case f.noHealth:
		h.Test = []string{"NONE"}
	case f.healthCmd != "":
		h.Test = []string{"CMD-SHELL", f.healthCmd}
	}
	f.call.Spec.Health = h
}

// parseMount reads what --mount takes, as a volume.
func parseMount(s string) (string, error) {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return "", fmt.Errorf("--mount %q: %w", s, err)
	}
	m := map[string]string{"type": "volume"}
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		switch key = strings.ToLower(key); key {
		case "type", "bind-propagation", "consistency", "tmpfs-size", "tmpfs-mode":
			m[key] = value
		case "source", "src":
			m["source"] = value
		case "target", "dst", "destination":
			m["target"] = value
		case "readonly", "ro":
			if value == "" || value == "true" || value == "1" {
				m["ro"] = ":ro"
			}
		default:
			return "", fmt.Errorf("--mount %q: %q is not supported", s, key)
		}
	}
	if m["target"] == "" || strings.ContainsAny(m["target"]+m["source"], ":") {
		return "", fmt.Errorf("--mount %q: a target is needed, and no path may have a colon", s)
	}
	switch m["type"] {
	case "tmpfs":
		return m["target"], nil
	case "bind":
		if !path.IsAbs(m["source"]) {
			return "", fmt.Errorf("--mount %q: the source must be absolute", s)
		}
	case "volume":
	default:
		return "", fmt.Errorf("--mount %q: type %q is not supported; use %s", s, m["type"],
			strings.Join(slices.Sorted(maps.Keys(map[string]bool{"bind": true, "volume": true, "tmpfs": true})), ", "))
	}
	if m["source"] == "" {
		return m["target"], nil
	}
	return m["source"] + ":" + m["target"] + m["ro"], nil
}

// parseSize reads "512m" as bytes.
func parseSize(s string) (int64, error) {
	text := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s), "b"), "i")
	factor := int64(1)
	if i := strings.IndexAny(text, "kmgt"); i >= 0 && i == len(text)-1 {
		factor = 1 << (10 * (1 + strings.IndexByte("kmgt", text[i])))
		text = text[:i]
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0 && n < 1<<40) {
		return 0, fmt.Errorf("size %q: want a number with k, m or g", s)
	}
	return int64(n * float64(factor)), nil
}
