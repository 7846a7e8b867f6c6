//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usedCPU is what this process and its children that ended used, in seconds.
func usedCPU() float64 {
	var total float64
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			total += float64(u.Utime.Nano()+u.Stime.Nano()) / float64(time.Second)
		}
	}
	return total
}

// childrenCPU is what the children of this process that still run used, in
// seconds. Each of them is git, which has one thread.
func childrenCPU() float64 {
	var total float64
	for _, pid := range childrenOf(os.Getpid()) {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
		if err != nil {
			continue
		}
		if fields := strings.Fields(string(data)); len(fields) > 0 {
			ns, _ := strconv.ParseFloat(fields[0], 64)
			total += ns / 1e9
		}
	}
	return total
}

func childrenOf(pid int) []int {
	var out []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		data, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(data)) {
			if id, err := strconv.Atoi(field); err == nil {
				out = append(out, id)
			}
		}
	}
	return out
}

// processCPU is what a process used, in seconds, to a hundredth.
func processCPU(pid int) float64 {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

// memory is what a process holds, in MiB.
type memory struct{ resident, proportional, peak float64 }

func memoryOf(pid int) memory {
	var m memory
	read := func(file, field string) float64 {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		for line := range strings.Lines(string(data)) {
			if value, ok := strings.CutPrefix(line, field); ok {
				kib, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
				return kib / 1024
			}
		}
		return 0
	}
	m.resident, m.peak, m.proportional = read("status", "VmRSS:"), read("status", "VmHWM:"), read("smaps_rollup", "Pss:")
	return m
}

// quantile of durations in milliseconds; q is 0.5 for the median.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
