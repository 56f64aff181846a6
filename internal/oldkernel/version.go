package oldkernel

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/syscalls"
)

// last is the last release of each series. After the newest series here
// nothing is known, and everything is believed.
var last = []struct{ first, last fdcall.Version }{
	{fdcall.Version{Major: 2, Minor: 6}, fdcall.Version{Major: 2, Minor: 6, Patch: 39}},
	{fdcall.Version{Major: 3}, fdcall.Version{Major: 3, Minor: 19}},
	{fdcall.Version{Major: 4}, fdcall.Version{Major: 4, Minor: 20}},
	{fdcall.Version{Major: 5}, fdcall.Version{Major: 5, Minor: 19}},
	{fdcall.Version{Major: 6}, fdcall.Version{Major: 6, Minor: 19}},
}

var release = regexp.MustCompile(`^(\d{1,2})\.(\d{1,3})(?:\.(\d{1,3}))?$`)

// parse reads a version such as 3.10, 4.4.302 or 2.6.26, and returns it
// together with the release that uname(2) tells there. Since Linux 3.0 the
// third number counts the fixes of a stable release: it is not part of the version.
func parse(s string) (fdcall.Version, string, error) {
	m := release.FindStringSubmatch(s)
	if m == nil {
		return fdcall.Version{}, "", fmt.Errorf("%q is no kernel version; write one as 3.10, 4.4.302 or 2.6.26", s)
	}
	var n [3]int
	for i := range n {
		n[i], _ = strconv.Atoi(m[1+i]) // digits; a missing one is 0
	}
	given := n
	if n[0] >= 3 {
		n[2] = 0
	}
	text := fmt.Sprintf("%d.%d.%d", given[0], given[1], given[2])
	if newest := last[len(last)-1].last; n[0] > int(newest.Major) {
		return fdcall.Version{Major: uint8(n[0]), Minor: uint8(min(n[1], 255))}, text, nil
	}
	for i, series := range last {
		to := series.last
		v := fdcall.Version{Major: uint8(n[0]), Minor: uint8(min(n[1], 255)), Patch: uint8(min(n[2], 255))}
		if syscalls.Compare(v, series.first) < 0 {
			if i == 0 {
				return v, text, fmt.Errorf("%s is older than what can be simulated; the oldest version is %s", s, series.first)
			}
			return v, text, fmt.Errorf("there was no Linux %s; the nearest versions are %s and %s", s, last[i-1].last, series.first)
		}
		if syscalls.Compare(v, to) <= 0 {
			return v, text, nil
		}
	}
	newest := last[len(last)-1].last
	return fdcall.Version{}, "", fmt.Errorf("there was no Linux %s; the nearest versions are %s and %d.0", s, newest, newest.Major+1)
}

// Running returns the version of the kernel that we run on.
func Running() (fdcall.Version, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fdcall.Version{}, fmt.Errorf("ask for the kernel's version: %w", err)
	}
	var v fdcall.Version
	text := unix.ByteSliceToString(u.Release[:])
	if _, err := fmt.Sscanf(text, "%d.%d", &v.Major, &v.Minor); err != nil {
		return v, fmt.Errorf("read the kernel's version %q: %w", text, err)
	}
	if v.Major == 2 {
		if _, err := fmt.Sscanf(text, "2.6.%d", &v.Patch); err != nil {
			return v, fmt.Errorf("read the kernel's version %q: %w", text, err)
		}
	}
	return v, nil
}

// Versions returns the versions up to and including newest that differ from
// the one before on this architecture, the oldest first.
func Versions(arch string, newest fdcall.Version) []fdcall.Version {
	oldest := syscalls.Oldest(offered(arch)[0])
	versions := []fdcall.Version{oldest}
	for _, f := range features() {
		for _, abi := range offered(arch) {
			v := f.since[abi]
			if f.nr[abi] != fdcall.None && syscalls.Compare(v, oldest) > 0 && syscalls.Compare(v, newest) <= 0 {
				versions = append(versions, v)
			}
		}
	}
	slices.SortFunc(versions, syscalls.Compare)
	return slices.Compact(versions)
}

// offered returns the ABIs of an architecture's kernels, the native one first.
func offered(arch string) []fdcall.ABI {
	if arch == "arm64" {
		return []fdcall.ABI{fdcall.ARM64}
	}
	return []fdcall.ABI{fdcall.AMD64, fdcall.I386, fdcall.X32}
}

// NewIn returns the names of what is new in a version on an architecture, native
// system calls first.
func NewIn(arch string, v fdcall.Version) []string {
	var names []string
	for _, abi := range offered(arch) {
		for _, f := range features() {
			if f.nr[abi] != fdcall.None && f.since[abi] == v && !slices.Contains(names, f.name) {
				names = append(names, f.name)
			}
		}
	}
	return names
}
