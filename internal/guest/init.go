package guest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Main is the machine's first process, if this one is it, and then does not
// return: it prepares the machine, runs the program again as an ordinary
// process, and switches the machine off.
func Main() {
	if os.Getpid() != 1 {
		return
	}
	if _, err := os.Stat("/" + argvFile); err != nil {
		return // the first process of a PID namespace
	}
	status, err := boot()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 125
	}
	fmt.Printf("\n%s%d\n", endMark, status)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	os.Exit(status)
}

func boot() (status int, err error) {
	for _, m := range []struct{ kind, dir string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"devpts", "/dev/pts"}, {"tmpfs", "/dev/shm"}, {"tmpfs", "/tmp"}, {"mqueue", "/dev/mqueue"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return 0, fmt.Errorf("make %s: %w", m.dir, err)
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return 0, fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	for link, target := range map[string]string{"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2"} {
		if err := os.Symlink(target, link); err != nil {
			return 0, fmt.Errorf("make %s: %w", link, err)
		}
	}
	if err := loopback(); err != nil {
		return 0, err
	}
	if err := loadModules(); err != nil {
		return 0, err
	}
	argv, err := os.ReadFile("/" + argvFile)
	if err != nil {
		return 0, fmt.Errorf("read what to run: %w", err)
	}
	env, err := os.ReadFile("/" + envFile)
	if err != nil {
		return 0, fmt.Errorf("read the environment: %w", err)
	}
	words := strings.Split(string(argv), "\n")
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = strings.Split(string(env), "\n")
	cmd.Dir = filepath.Dir(words[0])
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	var exit *exec.ExitError
	switch err := cmd.Run(); {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1), nil
	case err != nil:
		return 0, fmt.Errorf("run the program: %w", err)
	}
	return 0, nil
}

// loopback brings up the one network device.
func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// loadModules loads the kernel modules that the machine was given.
func loadModules() error {
	list, err := os.ReadFile("/" + modulesFile)
	if err != nil {
		return fmt.Errorf("read which modules to load: %w", err)
	}
	for _, name := range strings.Fields(string(list)) {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("load a module: %w", err)
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil {
			return fmt.Errorf("load the module %s: %w", name, err)
		}
	}
	return nil
}
