package tracee

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestAtOnce(t *testing.T) {
	for _, tt := range []struct {
		address uint64
		n       int
		want    bool
	}{
		{0x1000, 8, true}, {0x1000, 9, false}, {0x1006, 2, true},
		{0x103f, 2, false}, // crosses the end of every span
		{0x103e, 2, true}, {0x1fff, 1, true},
	} {
		if got := AtOnce(tt.address, tt.n); got != tt.want {
			t.Errorf("%d bytes at %#x: %v", tt.n, tt.address, got)
		}
	}
}

func TestMemory(t *testing.T) {
	m, err := OpenMemory(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	// Read and execute only, as code is.
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	at := uint64(uintptr(unsafe.Pointer(&b[0])))
	if err := m.Write(at+3, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	for offset := range uint64(62) {
		if !AtOnce(at+offset, 2) {
			continue
		}
		before := string(b[:64])
		if err := m.WriteAtOnce(at+offset, []byte("xy")); err != nil {
			t.Fatal(err)
		}
		if want := before[:offset] + "xy" + before[offset+2:]; string(b[:64]) != want {
			t.Fatalf("offset %d: %q, want %q", offset, b[:64], want)
		}
	}
	if err := m.WriteAtOnce(at+63, []byte("xy")); err == nil {
		t.Error("two cache lines were written at once")
	}
	if err := m.Read(0x1000, make([]byte, 8)); !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EFAULT) {
		t.Errorf("reading unmapped memory: %v", err)
	}
	if got := Peek(os.Getpid(), at, make([]byte, 4096+8)); got > 4096+8 || got < 4096 {
		t.Errorf("peeked %d bytes", got)
	}
	if got := Peek(os.Getpid(), 0x1000, make([]byte, 8)); got != 0 {
		t.Errorf("peeked %d bytes of nothing", got)
	}
}

// sleeper starts a process that sleeps, and locks the thread that will trace it.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	runtime.LockOSThread()
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		runtime.UnlockOSThread()
	})
	return c
}

func TestHoldAndLetGo(t *testing.T) {
	c := sleeper(t)
	th, err := Seize(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if stop, _, err := th.Stopped(); err != nil || stop != Interrupted {
		t.Fatalf("stop %v, %v", stop, err)
	}
	if s, err := ReadStatus(c.Process.Pid); err != nil || s.Tracer == 0 {
		t.Errorf("status %+v, %v: nobody traces it", s, err)
	}
	r, err := th.Regs()
	if err != nil {
		t.Fatal(err)
	}
	if err := th.SetRegs(r); err != nil {
		t.Fatal(err)
	}
	mask, err := th.SigMask()
	if err != nil {
		t.Fatal(err)
	}
	if err := th.SetSigMask(AllSignals); err != nil {
		t.Fatal(err)
	}
	if err := th.SetSigMask(mask); err != nil {
		t.Fatal(err)
	}
	if err := th.Detach(0); err != nil {
		t.Fatal(err)
	}
	if s, err := ReadStatus(c.Process.Pid); err != nil || s.Tracer != 0 {
		t.Errorf("status %+v, %v: still traced", s, err)
	}
}

// A thread that is killed while it is held is gone, and its death is taken
// note of: its parent can wait for it.
func TestKilledWhileHeld(t *testing.T) {
	c := sleeper(t)
	th, err := Seize(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := th.Stopped(); err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for {
		// The stop lasts until the signal has done its work.
		if err = th.Detach(0); err != nil {
			break
		}
		if th, err = Seize(c.Process.Pid); err != nil {
			break
		}
		if _, _, err = th.Stopped(); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrGone) && !errors.Is(err, unix.EPERM) {
		t.Errorf("a killed thread: %v", err)
	}
}

func TestSeizeNobody(t *testing.T) {
	if _, err := Seize(1 << 30); !errors.Is(err, ErrGone) {
		t.Errorf("seizing a thread that cannot be: %v", err)
	}
}
